"""Process what a collection reads once more: a trigger makes batches of it and submits them.

A plain trigger reprocesses: documents are upserted where the bucket has a unique key, and new ones are made where it has none.
Everything downstream of the collection follows in later tiers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.catalog.listing import Scope
from mixpeek_dagster.errors import BadRequest, NotFound
from mixpeek_dagster.models.batches import Batch, BatchStatus, DedupStrategy
from mixpeek_dagster.models.collections import Collection, downstream_tiers
from mixpeek_dagster.models.filters import Filter
from mixpeek_dagster.models.ids import BatchId, BucketId, CollectionId, TaskId, new_id
from mixpeek_dagster.models.values import Lenient
from mixpeek_dagster.pipeline.batches import create_batch, end, submit
from mixpeek_dagster.pipeline.warehouse import Warehouse

Identifier = Annotated[str, Field(min_length=1, max_length=255)]


class Reembed(Lenient):
    """Infer again what is known already. `only_missing`, the default, is what every batch does; of the rest nothing is offered here."""

    only_missing: bool = True
    dry_run: Literal[False] = False
    document_ids: None = None
    outputs: None = None
    target_feature_uri: None = None


class TriggerRequest(Lenient):
    """What of a collection's sources to process: all of it when nothing is said.

    `object_ids` is short for a filter `object_id in …`, for collections that read buckets. With `reembed` everything is inferred again,
    also what the same extractor made of the same content before.
    """

    include_buckets: Sequence[Identifier] | None = Field(default=None, min_length=1, max_length=1000)
    include_collections: Sequence[Identifier] | None = Field(default=None, min_length=1, max_length=1000)
    object_ids: Sequence[Identifier] | None = Field(default=None, max_length=100_000)
    source_filters: dict[str, Any] | None = None
    dedup_strategy: DedupStrategy = "force"
    reembed: bool | Reembed = False

    @property
    def infers_again(self) -> bool:
        return self.reembed if isinstance(self.reembed, bool) else not self.reembed.only_missing


@dataclass(frozen=True)
class Triggered:
    """The batches that were submitted, and what they hold. The first one is what a client watches."""

    batches: Sequence[Batch]
    bucket_ids: Sequence[BucketId] = ()
    collection_ids: Sequence[CollectionId] = ()
    objects: int | None = None
    documents: int | None = None
    tiers: int = field(default=1)


def trigger(warehouse: Warehouse, collection: Collection, body: TriggerRequest) -> Triggered:
    """Submit batches of everything the request names.

    Raises:
        NotFound: an included bucket or collection does not exist, or an object is in none of the buckets; nothing is submitted.
        BadRequest: it is no source of the collection, or of another kind than its sources; or the collection is disabled.
        Invalid: `source_filters` are no filter.
    """
    if not collection.enabled:
        raise BadRequest(f"Collection {collection.collection_name!r} is disabled; enable it before you trigger it.")
    _check_kind(collection, body)
    wanted = Filter.parse(body.source_filters, at="source_filters")
    with warehouse.catalog.transaction() as records:
        every = records.collections.all(collection.namespace_id)
        below = downstream_tiers(
            [one for one in every if one.collection_id != collection.collection_id], roots=[collection.collection_id]
        )
        chosen = [collection.collection_id, *(one for tier in below for one in tier)]
        if collection.source.type == "bucket":
            return _objects(records, warehouse, collection, body, wanted, chosen)
        return _documents(records, warehouse, collection, body, wanted, tiers=1 + len(below))


def _objects(
    records: Records,
    warehouse: Warehouse,
    collection: Collection,
    body: TriggerRequest,
    wanted: Filter,
    chosen: Sequence[CollectionId],
) -> Triggered:
    now = warehouse.now()
    bucket_ids = list(collection.source.bucket_ids)
    if body.include_buckets is not None:
        asked = [records.buckets.get(one, namespace_id=collection.namespace_id).bucket_id for one in body.include_buckets]
        _check_sources(collection, asked, bucket_ids)
        bucket_ids = list(dict.fromkeys(asked))
    _check_objects(records, bucket_ids, body.object_ids or ())
    batches: list[Batch] = []
    count = 0
    for bucket_id in bucket_ids:
        ids = records.objects.matching(bucket_id, wanted, among=body.object_ids)
        if not ids and (batches or bucket_id != bucket_ids[-1]):
            continue
        batch = create_batch(
            records,
            ids,
            namespace_id=collection.namespace_id,
            bucket_id=bucket_id,
            now=now,
            collection_ids=list(chosen),
            dedup=body.dedup_strategy,
            reembed=body.infers_again,
        )
        batches.append(_submit(records, warehouse, batch))
        count += len(ids)
    tiers = max((len(one.dag_tiers) for one in batches), default=1)
    return Triggered(batches, bucket_ids=bucket_ids, objects=count, tiers=max(1, tiers))


def _documents(
    records: Records, warehouse: Warehouse, collection: Collection, body: TriggerRequest, wanted: Filter, *, tiers: int
) -> Triggered:
    now = warehouse.now()
    sources = list(collection.source.collection_ids)
    if body.include_collections is not None:
        asked = [
            records.collections.get(one, namespace_id=collection.namespace_id).collection_id for one in body.include_collections
        ]
        _check_sources(collection, asked, sources)
        sources = list(dict.fromkeys(asked))
    ids = records.listing.ids(Scope(namespace_id=collection.namespace_id, collection_ids=sources, filter=wanted))
    batch = Batch(
        batch_id=BatchId(new_id("btch", length=12)),
        namespace_id=collection.namespace_id,
        bucket_id=None,
        type="COLLECTION",
        status=BatchStatus.DRAFT,
        dedup_strategy=body.dedup_strategy,
        reembed=body.infers_again,
        collection_ids=[collection.collection_id],
        created_at=now,
        updated_at=now,
    )
    records.batches.add(batch)
    batch = _submit(records, warehouse, records.batches.append_items(batch, ids, now=now))
    return Triggered([batch], collection_ids=sources, documents=len(ids), tiers=tiers)


def _check_objects(records: Records, bucket_ids: Sequence[BucketId], object_ids: Sequence[str]) -> None:
    known = records.objects.named(dict.fromkeys(object_ids))
    unknown = [one for one in object_ids if one not in known or known[one].bucket_id not in bucket_ids]
    if unknown:
        raise NotFound(
            f"{len(unknown)} objects are not in {', '.join(bucket_ids)}: {', '.join(unknown[:5])}. Nothing was submitted."
        )


def _check_kind(collection: Collection, body: TriggerRequest) -> None:
    """What the collection does not read from cannot be chosen; ignoring it would process more than was asked for."""
    reads = collection.source.type
    named = ("include_collections",) if reads == "bucket" else ("include_buckets", "object_ids")
    wrong = [name for name in named if getattr(body, name) is not None]
    if wrong:
        raise BadRequest(f"{wrong[0]}: collection {collection.collection_name!r} reads from {reads}s only.")


def _check_sources(collection: Collection, asked: Sequence[str], sources: Sequence[str]) -> None:
    foreign = [one for one in asked if one not in sources]
    if foreign:
        raise BadRequest(
            f"{', '.join(foreign[:5])}: no source of collection {collection.collection_name!r}, which reads {', '.join(sources)}."
        )


def _submit(records: Records, warehouse: Warehouse, batch: Batch) -> Batch:
    """Submitted; one without items ends at once, so that a client that waits for it comes to an end too."""
    now = warehouse.now()
    if batch.item_count:
        return submit(records, batch, settings=warehouse.settings, now=now)
    queued = records.batches.move(batch, BatchStatus.QUEUED, now=now, task_id=TaskId(new_id("task")), submitted_at=now)
    return end(records, queued, BatchStatus.COMPLETED, now=now, error="Nothing to process: no object or document matches.")
