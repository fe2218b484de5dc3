"""Change buckets, and see whether one may be deleted."""

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.errors import BadRequest, Invalid, WrongState
from mixpeek_dagster.models.buckets import Bucket, BucketPatch, BucketSchema, UniqueKey
from mixpeek_dagster.pipeline.namespaces import active_batches
from mixpeek_dagster.pipeline.warehouse import Warehouse


def change_bucket(warehouse: Warehouse, bucket: Bucket, body: BucketPatch, *, force_schema_break: bool) -> Bucket:
    """Change what the body names.

    Raises:
        AlreadyExists: another bucket of the namespace has the name.
        BadRequest: the new schema does not take what is there, and it is not forced; or another unique key.
    """
    with warehouse.catalog.transaction() as records:
        records.buckets.hold(bucket.bucket_id)
        before = records.buckets.get(bucket.bucket_id, namespace_id=bucket.namespace_id)
        if body.bucket_schema is not None and not force_schema_break:
            _check_schema(before, body.bucket_schema)
        given = {
            "bucket_name": body.bucket_name,
            "description": body.description,
            "bucket_schema": body.bucket_schema,
            "metadata": body.metadata,
            "unique_key": _unique_key(before, body.unique_key) if body.unique_key else None,
        }
        update = {name: value for name, value in given.items() if value is not None}
        changed = before.model_copy(update={**update, "updated_at": warehouse.now()})
        missing = [name for name in (changed.unique_key.fields if changed.unique_key else ()) if not _is_scalar(changed, name)]
        if missing:
            raise Invalid(f"unique_key field {missing[0]!r} must stay a scalar metadata field of the schema.")
        records.buckets.put(changed)
    return changed


def _is_scalar(bucket: Bucket, name: str) -> bool:
    field = bucket.bucket_schema.properties.get(name)
    return field is not None and field.type.is_scalar


def _check_schema(before: Bucket, after: BucketSchema) -> None:
    """What objects already have must still fit: no property gone or of another type, none newly required."""
    if before.object_count == 0:
        return
    remedy = "force_schema_break=true does it all the same"
    for name, field in before.bucket_schema.properties.items():
        now = after.properties.get(name)
        if now is None or now.type is not field.type:
            verb = "removes" if now is None else "changes the type of"
            raise BadRequest(f"The new schema {verb} {name!r}, which objects may have; {remedy}.")
    for name, field in after.properties.items():
        old = before.bucket_schema.properties.get(name)
        if field.required and field.default is None and not (old and old.required):
            raise BadRequest(f"The new schema requires {name!r}, which objects may lack; {remedy}.")


def _unique_key(bucket: Bucket, wanted: UniqueKey) -> UniqueKey:
    if bucket.unique_key is None or list(bucket.unique_key.fields) != list(wanted.fields):
        raise BadRequest("The fields of a unique key are fixed when the bucket is made; only default_policy may change.")
    return wanted


def check_removable(records: Records, bucket: Bucket, *, force: bool) -> None:
    """Raises WrongState when work is under way or a collection reads from the bucket, unless `force`d."""
    if force:
        return
    busy = active_batches(records, bucket.namespace_id, bucket.bucket_id)
    if busy:
        raise WrongState(f"{len(busy)} batches of bucket {bucket.bucket_id} are under way; cancel them, or force_foreclose=true.")
    readers = [one for one in records.collections.all(bucket.namespace_id) if bucket.bucket_id in one.source.bucket_ids]
    if readers:
        names = ", ".join(one.collection_name for one in readers[:5])
        raise WrongState(f"Collections read from bucket {bucket.bucket_name!r} ({names}): delete them, or force_foreclose=true.")
