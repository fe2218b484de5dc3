"""Change namespaces, and see whether work is under way in them."""

from collections.abc import Sequence

from mixpeek_dagster import plugins
from mixpeek_dagster.catalog import Records
from mixpeek_dagster.errors import WrongState
from mixpeek_dagster.models.batches import Batch, BatchStatus
from mixpeek_dagster.models.ids import BucketId, NamespaceId
from mixpeek_dagster.models.namespaces import Namespace, NamespacePatch
from mixpeek_dagster.pipeline.warehouse import Warehouse

_ACTIVE = (BatchStatus.QUEUED, BatchStatus.PROCESSING)


def change_namespace(warehouse: Warehouse, namespace_id: NamespaceId, body: NamespacePatch, *, replace: bool) -> Namespace:
    """Change what the body names. Extractors are added, indexes are added or, with `replace`, replaced.

    Raises:
        AlreadyExists: another namespace has the name.
        UnknownName: nobody registered an extractor.
    """
    for one in body.feature_extractors or ():
        plugins.check_named("extractors", f"{one.feature_extractor_name}_{one.version}", modules=())
    with warehouse.catalog.transaction() as records:
        records.namespaces.hold(namespace_id)
        before = records.namespaces.get(namespace_id)
        extractors = {(one.feature_extractor_name, one.version): one for one in before.feature_extractors}
        extractors |= {(one.feature_extractor_name, one.version): one for one in body.feature_extractors or ()}
        indexes = {} if replace and body.payload_indexes is not None else {i.field_name: i for i in before.payload_indexes}
        indexes |= {one.field_name: one for one in body.payload_indexes or ()}
        changed = before.model_copy(
            update={
                "namespace_name": body.namespace_name or before.namespace_name,
                "description": body.description if body.description is not None else before.description,
                "feature_extractors": list(extractors.values()),
                "payload_indexes": list(indexes.values()),
                "updated_at": warehouse.now(),
            }
        )
        records.namespaces.put(changed)
    return changed


def active_batches(records: Records, namespace_id: NamespaceId, bucket_id: BucketId | None = None) -> Sequence[Batch]:
    """Batches that wait or run."""
    return records.batches.page(namespace_id=namespace_id, bucket_id=bucket_id, statuses=_ACTIVE, limit=1_000_000)[0]


def check_idle(records: Records, namespace_id: NamespaceId, bucket_id: BucketId | None = None, *, force: bool) -> None:
    """Raises WrongState while batches are under way, unless `force`d."""
    busy = [] if force else active_batches(records, namespace_id, bucket_id)
    if busy:
        raise WrongState(
            f"{len(busy)} batches of {bucket_id or namespace_id} are under way ({busy[0].batch_id}): cancel them, or force it."
        )
