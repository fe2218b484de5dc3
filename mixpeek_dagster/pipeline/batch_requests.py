"""What clients ask of batches: make, fill and submit them, do failed work again, and delete them.

A batch that has ended stays as it ended: trying again makes another batch that names the first in its metadata.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.errors import PERMANENT, AlreadyExists, Invalid, NotFound, WrongState
from mixpeek_dagster.models.batches import Batch, BatchStatus, DedupStrategy, Failure
from mixpeek_dagster.models.buckets import Bucket
from mixpeek_dagster.models.filters import Filter
from mixpeek_dagster.models.ids import BatchId, CollectionId, NamespaceId, new_id
from mixpeek_dagster.models.values import Lenient
from mixpeek_dagster.pipeline.batches import create_batch, submit
from mixpeek_dagster.pipeline.removal import finish_removals, remove_documents
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.storage.egress import check_receiver

MAX_BY_FILTER = 50_000
MAX_TRIES = 10
_CHUNK = 500
Id = Annotated[str, Field(min_length=1, max_length=255)]


class BatchCreate(Lenient):
    """Body of a new batch: `object_ids`, or `filters` over the bucket's objects."""

    object_ids: Sequence[Id] | None = Field(default=None, min_length=1, max_length=100_000)
    filters: dict[str, Any] | None = None
    limit: int | None = Field(default=None, ge=1, le=MAX_BY_FILTER)
    collection_ids: Sequence[Id] | None = Field(default=None, max_length=1000)
    dedup_strategy: DedupStrategy = "skip"
    metadata: dict[str, Any] | None = None
    batch_name: str | None = Field(default=None, max_length=256)
    auto_submit: bool = False
    trigger_processing: bool = False

    @model_validator(mode="after")
    def _says_which_objects(self) -> Self:
        if (self.object_ids is None) == (self.filters is None):
            raise ValueError("a batch needs object_ids, or else filters")
        return self


class BatchPatch(Lenient):
    """What may change of a batch."""

    metadata: dict[str, Any] | None = None
    batch_name: str | None = Field(default=None, max_length=256)


class BatchSubmit(Lenient):
    """How to submit: `webhook_url` is told once when the batch has ended. `collection_ids` is better said when the batch is made."""

    webhook_url: str | None = Field(default=None, max_length=2048)
    collection_ids: Sequence[Id] | None = Field(default=None, max_length=1000)
    include_processing_history: bool = True


class BatchRetry(Lenient):
    """Which failures to try again. A body without `retry_mode` means all of them; the SDK's says `transient_only`."""

    retry_mode: Literal["transient_only", "all"] = "all"
    tier_nums: Sequence[Annotated[int, Field(ge=0, le=1000)]] = Field(default=(), max_length=100)
    max_retry_count: int = Field(default=MAX_TRIES, ge=1, le=10)


def make_batch(warehouse: Warehouse, bucket: Bucket, body: BatchCreate, *, submit_now: bool) -> Batch:
    """A DRAFT batch, or with `submit_now` a QUEUED one.

    Raises:
        NotFound: an object or a collection does not exist; nothing is made.
        Invalid: the filters are none, or match more objects than one batch may take without a `limit`.
    """
    with warehouse.catalog.transaction() as records:
        now = warehouse.now()
        batch = create_batch(
            records,
            body.object_ids or _matching(records, bucket, body),
            namespace_id=bucket.namespace_id,
            bucket_id=bucket.bucket_id,
            now=now,
            collection_ids=_resolved(records, bucket.namespace_id, body.collection_ids),
            dedup=body.dedup_strategy,
        )
        records.batches.set(batch.batch_id, now=now, metadata=body.metadata, batch_name=body.batch_name)
        batch = records.batches.get(batch.batch_id)
        return submit(records, batch, settings=warehouse.settings, now=now) if submit_now else batch


def _matching(records: Records, bucket: Bucket, body: BatchCreate) -> Sequence[str]:
    most = body.limit or MAX_BY_FILTER + 1
    found = records.objects.matching(bucket.bucket_id, Filter.parse(body.filters), limit=most)
    if len(found) > MAX_BY_FILTER:
        raise Invalid(f"filters match more than {MAX_BY_FILTER:,} objects; set a limit and make several batches.")
    return found


def _resolved(records: Records, namespace_id: NamespaceId, wanted: Sequence[str] | None) -> Sequence[CollectionId] | None:
    if not wanted:
        return None
    return [records.collections.get(one, namespace_id=namespace_id).collection_id for one in wanted]


def add_objects(warehouse: Warehouse, bucket: Bucket, batch_id: str, object_ids: Sequence[str]) -> Batch:
    """Add objects to a DRAFT batch; those it holds already stay once.

    Raises:
        NotFound: the batch or an object is not in the bucket; nothing is added.
        WrongState: the batch is no DRAFT.
    """
    with warehouse.catalog.transaction() as records:
        now = warehouse.now()
        records.batches.hold(batch_id)
        batch = records.batches.get(batch_id, namespace_id=bucket.namespace_id, bucket_id=bucket.bucket_id)
        if batch.status is not BatchStatus.DRAFT:
            raise WrongState(f"Batch {batch_id} is {batch.status}; objects can be added to a DRAFT only.")
        known = records.objects.named(object_ids)
        unknown = [one for one in object_ids if one not in known or known[one].bucket_id != bucket.bucket_id]
        if unknown:
            raise NotFound(f"{len(unknown)} objects are not in bucket {bucket.bucket_id}: {', '.join(unknown[:5])}.")
        there = {item for _, item in records.batches.items(batch.batch_id)}
        fresh = [one for one in dict.fromkeys(object_ids) if one not in there]
        return records.batches.append_items(batch, fresh, now=now)


def submit_batch(warehouse: Warehouse, batch: Batch, body: BatchSubmit, *, force: bool = False) -> Batch:
    """DRAFT → QUEUED.

    Args:
        force: also when another batch is taking an object of this one through the same collection.

    Raises:
        WrongState: it is no DRAFT. BadRequest: it has no objects. NotFound: a collection does not exist.
        UrlRefused: the webhook's URL may not be reached, or is not https.
        AlreadyExists: the same work is under way, and this is not `force`d.
    """
    if body.webhook_url is not None:
        check_receiver(body.webhook_url, allowed_hosts=warehouse.settings.allowed_hosts)
    with warehouse.catalog.transaction() as records:
        now = warehouse.now()
        records.namespaces.hold(batch.namespace_id)  # of two batches with the same work, the second sees the first
        records.batches.hold(batch.batch_id)
        current = records.batches.get(batch.batch_id, namespace_id=batch.namespace_id)
        if current.status is BatchStatus.DRAFT:
            chosen = _resolved(records, batch.namespace_id, body.collection_ids) or current.collection_ids
            url = body.webhook_url or current.webhook_url
            records.batches.set(batch.batch_id, now=now, webhook_url=url, collection_ids=chosen)
        queued = submit(records, records.batches.get(batch.batch_id), settings=warehouse.settings, now=now)
        if not force:
            _check_alone(records, queued)
        return queued


def _check_alone(records: Records, batch: Batch) -> None:
    own = set(batch.collection_ids or ())
    for other in records.batches.sharing_items(batch):
        if own & set(other.collection_ids or ()):
            raise AlreadyExists(
                f"Batch {other.batch_id} is {other.status} with some of the objects of {batch.batch_id} and the same collection: "
                "wait until it has ended, or submit with ?force=true."
            )


def retry_failed(warehouse: Warehouse, batch: Batch, body: BatchRetry) -> Batch | None:
    """A new batch of what failed in one that has ended, submitted; None when there is nothing to try again. What succeeded is
    not done again.

    Raises:
        WrongState: the batch has not ended.
    """
    with warehouse.catalog.transaction() as records:
        _check_ended(batch, "retried")
        failures = records.batches.failures(batch.batch_id, limit=1_000_000)[0]
        wanted = [one for one in failures if _is_to_be_tried(one, batch, body)]
        items = list(dict.fromkeys(one.item_id if batch.type == "COLLECTION" else one.object_id or "" for one in wanted))
        if not failures and batch.status is not BatchStatus.COMPLETED:
            items = [item for _, item in records.batches.items(batch.batch_id)]
        known = records.documents.named(items) if batch.type == "COLLECTION" else records.objects.named(items)
        there = [one for one in items if one in known]
        return _again(records, warehouse, batch, there, "retry_of", dedup="skip") if there else None


def _is_to_be_tried(failure: Failure, batch: Batch, body: BatchRetry) -> bool:
    if failure.tries > body.max_retry_count or (body.retry_mode == "transient_only" and failure.error_type in PERMANENT):
        return False
    wanted = {one for number in body.tier_nums if number < len(batch.dag_tiers) for one in batch.dag_tiers[number]}
    return not body.tier_nums or failure.collection_id in wanted


def resubmit(warehouse: Warehouse, batch: Batch, *, submit_now: bool) -> Batch:
    """A new batch of everything in one that has ended; its documents take the place of the old ones.

    Raises:
        WrongState: the batch has not ended, or nothing of it is left.
    """
    with warehouse.catalog.transaction() as records:
        _check_ended(batch, "resubmitted")
        items = [item for _, item in records.batches.items(batch.batch_id)]
        known = records.documents.named(items) if batch.type == "COLLECTION" else records.objects.named(items)
        there = [one for one in items if one in known]
        if not there:
            raise WrongState(f"Nothing of batch {batch.batch_id} is left: its objects were deleted.")
        return _again(records, warehouse, batch, there, "resubmission_of", dedup="replace", submit_now=submit_now)


def _check_ended(batch: Batch, what: str) -> None:
    if not batch.status.is_terminal:
        raise WrongState(f"Batch {batch.batch_id} is {batch.status}; it can be {what} when it has ended.")


def _again(
    records: Records,
    warehouse: Warehouse,
    batch: Batch,
    items: Sequence[str],
    link: str,
    *,
    dedup: DedupStrategy,
    submit_now: bool = True,
) -> Batch:
    now = warehouse.now()
    roots = list(batch.dag_tiers[0]) if batch.type == "COLLECTION" and batch.dag_tiers else batch.collection_ids
    again = Batch(
        batch_id=BatchId(new_id("btch", length=12)),
        namespace_id=batch.namespace_id,
        bucket_id=batch.bucket_id,
        type=batch.type,
        status=BatchStatus.DRAFT,
        dedup_strategy=dedup,
        batch_name=batch.batch_name,
        metadata={**(batch.metadata or {}), link: batch.batch_id},
        collection_ids=roots or None,
        webhook_url=batch.webhook_url,
        created_at=now,
        updated_at=now,
    )
    records.batches.add(again)
    again = records.batches.append_items(again, items, now=now)
    return submit(records, again, settings=warehouse.settings, now=now) if submit_now else again


def delete_batch(warehouse: Warehouse, batch: Batch) -> None:
    """Forget a batch; its documents stay.

    Raises:
        WrongState: it is under way.
    """
    with warehouse.catalog.transaction() as records:
        records.batches.hold(batch.batch_id)
        current = records.batches.get(batch.batch_id, namespace_id=batch.namespace_id)
        if current.status in (BatchStatus.QUEUED, BatchStatus.PROCESSING):
            raise WrongState(f"Batch {batch.batch_id} is {current.status}; cancel it before you delete it.")
        records.batches.remove(batch.batch_id)


def delete_documents(warehouse: Warehouse, batch: Batch) -> int:
    """Delete what a batch that has ended wrote, with everything made from it; how many documents. Doing it again goes on.

    Raises:
        WrongState: the batch has not ended.
    """
    _check_ended(batch, "cleared of its documents")
    with warehouse.catalog.reading() as records:
        keys = [part.partition_key for part in records.batches.parts(batch.batch_id)]
    removed = 0
    for key in keys:
        while True:
            with warehouse.catalog.transaction() as records:
                found = records.documents.of_part(key, batch.collection_ids or (), after="", limit=_CHUNK)
                removed += remove_documents(records, warehouse, [one.document_id for one in found], now=warehouse.now())
            finish_removals(warehouse)
            if len(found) < _CHUNK:
                break
    return removed
