"""Delete buckets and namespaces with everything in them: tasks, so every function may be run again and goes on where it stopped."""

from collections.abc import Mapping
from typing import Any

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.errors import NotFound
from mixpeek_dagster.models.buckets import Bucket
from mixpeek_dagster.models.ids import BucketId, NamespaceId
from mixpeek_dagster.pipeline.batches import cancel
from mixpeek_dagster.pipeline.blobs import managed_keys
from mixpeek_dagster.pipeline.namespaces import active_batches
from mixpeek_dagster.pipeline.removal import finish_removals, remove_objects, space_of
from mixpeek_dagster.pipeline.warehouse import Warehouse

_CHUNK = 500


def delete_namespace(warehouse: Warehouse, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Delete a namespace: its buckets one by one, then what is left. Doing it again does nothing."""
    namespace_id = NamespaceId(inputs["namespace_id"])
    try:
        with warehouse.catalog.transaction() as records:
            records.namespaces.get(namespace_id)
            for batch in active_batches(records, namespace_id):
                cancel(records, batch.batch_id, now=warehouse.now())
            collections = records.collections.all(namespace_id)
            counts = records.namespaces.counts(namespace_id)
            buckets = records.buckets.all(namespace_id)
    except NotFound:
        return {}
    for bucket in buckets:
        delete_bucket(warehouse, {"bucket_id": bucket.bucket_id, "namespace_id": namespace_id})
    with warehouse.catalog.transaction() as records:
        records.namespaces.remove(namespace_id)
    for collection in collections:
        warehouse.index.drop(space_of(collection))
    return counts


def delete_bucket(warehouse: Warehouse, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Delete a bucket with its syncs, its objects, their documents and vectors, and the files we keep for them."""
    bucket_id, namespace_id = BucketId(inputs["bucket_id"]), NamespaceId(inputs["namespace_id"])
    try:
        with warehouse.catalog.transaction() as records:
            bucket = records.buckets.get(bucket_id, namespace_id=namespace_id)
            for batch in active_batches(records, namespace_id, bucket_id):
                cancel(records, batch.batch_id, now=warehouse.now())
            records.syncs.remove_of_bucket(bucket_id)
    except NotFound:
        return {}
    objects = documents = 0
    while True:
        with warehouse.catalog.transaction() as records:
            doomed = records.objects.ids_in_bucket(bucket_id, limit=_CHUNK)
            if not doomed:
                files = [key for upload in records.uploads.all(bucket_id) for key in {upload.key, upload.landing_key}]
                _forget(records, bucket)
                break
            files = [key for one in records.objects.named(doomed).values() for key in managed_keys(one.blobs)]
            documents += remove_objects(records, warehouse, doomed, now=warehouse.now())
            objects += len(doomed)
        finish_removals(warehouse)
        _delete_files(warehouse, files)
    _delete_files(warehouse, files)
    return {"documents_deleted": documents, "objects_deleted": objects}


def _delete_files(warehouse: Warehouse, keys: list[str]) -> None:
    for key in keys:
        warehouse.blobs.delete(key)


def _forget(records: Records, bucket: Bucket) -> None:
    """Delete the bucket's row, and its name from the sources of collections that read from others too."""
    records.namespaces.hold(bucket.namespace_id)  # no collection is made meanwhile that reads it
    for one in records.collections.all(bucket.namespace_id):
        left = [each for each in one.source.bucket_ids if each != bucket.bucket_id]
        if bucket.bucket_id in one.source.bucket_ids and left:
            records.collections.put(one.model_copy(update={"source": one.source.model_copy(update={"bucket_ids": left})}))
        elif bucket.bucket_id in one.source.bucket_ids:
            records.collections.put(one.model_copy(update={"enabled": False}))
    records.buckets.remove(bucket.bucket_id)
