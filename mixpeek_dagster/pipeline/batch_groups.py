"""Many batches at once: cut a bucket into batches and submit them, submit all drafts, and see the queue."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from mixpeek_dagster.errors import Invalid, MixpeekError
from mixpeek_dagster.models.batches import Batch, BatchStatus, DedupStrategy
from mixpeek_dagster.models.buckets import Bucket
from mixpeek_dagster.models.filters import Filter
from mixpeek_dagster.models.ids import NamespaceId, new_id
from mixpeek_dagster.models.values import Lenient
from mixpeek_dagster.pipeline.batch_requests import BatchCreate, BatchSubmit, Id, make_batch, submit_batch
from mixpeek_dagster.pipeline.warehouse import Warehouse

MAX_BATCHES = 1000


class BulkSubmit(Lenient):
    """Which objects of a bucket, and how they are cut into batches."""

    collection_ids: Sequence[Id] | None = Field(default=None, max_length=1000)
    filters: dict[str, Any] | None = None
    chunk_size: int = Field(default=1000, ge=1, le=50_000)
    dedup_strategy: DedupStrategy = "skip"
    max_objects: int | None = Field(default=None, ge=1)


@dataclass(frozen=True)
class Submitted:
    """One batch of several: QUEUED, or a DRAFT that could not be submitted, with the reason."""

    batch: Batch
    error: str | None = None


def bulk_submit(warehouse: Warehouse, bucket: Bucket, body: BulkSubmit) -> tuple[str, list[Submitted]]:
    """Cut the bucket's objects into batches and submit each: the name of the group, and its batches. Each is made and submitted in
    one transaction; the metadata of all of them names the group.

    Raises:
        Invalid: the filters are none, or there would be more than a thousand batches. NotFound: a collection does not exist.
    """
    with warehouse.catalog.reading() as records:
        found = records.objects.matching(bucket.bucket_id, Filter.parse(body.filters), limit=body.max_objects)
    chunks = [found[start : start + body.chunk_size] for start in range(0, len(found), body.chunk_size)]
    if len(chunks) > MAX_BATCHES:
        raise Invalid(f"{len(found):,} objects make {len(chunks):,} batches; at most {MAX_BATCHES:,}: use a larger chunk_size.")
    group = new_id("grp")
    shared = {"collection_ids": body.collection_ids, "dedup_strategy": body.dedup_strategy}
    asked = [BatchCreate(object_ids=chunk, metadata={"batch_group_id": group}, **shared) for chunk in chunks]
    return group, [Submitted(make_batch(warehouse, bucket, one, submit_now=True)) for one in asked]


def submit_drafts(warehouse: Warehouse, bucket: Bucket) -> list[Submitted]:
    """Submit the bucket's drafts, the oldest first; one that cannot be submitted stays a DRAFT and keeps no other back.

    A draft that a sync is filling is left to its sync.
    """
    with warehouse.catalog.reading() as records:
        drafts, _ = records.batches.page(
            namespace_id=bucket.namespace_id, bucket_id=bucket.bucket_id, statuses=[BatchStatus.DRAFT], limit=10_000
        )
    return [_submitted(warehouse, one) for one in reversed(drafts) if one.sync_id is None]


def _submitted(warehouse: Warehouse, batch: Batch) -> Submitted:
    try:
        return Submitted(submit_batch(warehouse, batch, BatchSubmit()))
    except MixpeekError as error:
        return Submitted(batch, error.message)


def queue(warehouse: Warehouse, namespace_id: NamespaceId, *, limit: int = 1000) -> tuple[list[Batch], list[Batch]]:
    """The batches that are being processed, and those that wait, in the order they will be taken."""
    with warehouse.catalog.reading() as records:
        running, _ = records.batches.page(namespace_id=namespace_id, statuses=[BatchStatus.PROCESSING], limit=limit)
        waiting, _ = records.batches.page(namespace_id=namespace_id, statuses=[BatchStatus.QUEUED], limit=limit)
    return running, sorted(waiting, key=lambda one: (one.submitted_at or "", one.batch_id))
