"""The life of a batch: created, filled, submitted, claimed, run step by step, ended.

Every function that writes takes the `records` of the caller's transaction, so a status never moves without what explains it.
"""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.catalog.batches import Claim
from mixpeek_dagster.errors import (
    BadRequest,
    ExtractionError,
    Invalid,
    MixpeekError,
    NotFound,
    SchemaViolation,
    Transient,
    UrlRefused,
    WrongState,
)
from mixpeek_dagster.models.batches import (
    CAREFUL,
    MAX_STALLS,
    MOST_STALLS,
    Batch,
    BatchPart,
    BatchStatus,
    DedupStrategy,
    PartStatus,
    Step,
    fold,
    partition_key,
)
from mixpeek_dagster.models.collections import Collection, downstream_tiers
from mixpeek_dagster.models.ids import BatchId, BucketId, CollectionId, NamespaceId, TaskId, new_id
from mixpeek_dagster.models.objects import ObjectStatus
from mixpeek_dagster.pipeline.stalls import lay_aside
from mixpeek_dagster.settings import Settings

HOPELESS = frozenset({ExtractionError.code, Invalid.code, SchemaViolation.code, UrlRefused.code})
"""Failures that are the object's own fault: another try would end the same way."""


class Superseded(Transient):
    """The part was canceled, or a later run took it over: this run must stop and write nothing more."""


def create_batch(
    records: Records,
    object_ids: Sequence[str],
    *,
    namespace_id: NamespaceId,
    bucket_id: BucketId,
    now: str,
    collection_ids: Sequence[CollectionId] | None = None,
    dedup: DedupStrategy = "skip",
    reembed: bool = False,
) -> Batch:
    """A DRAFT batch of these objects.

    Raises:
        NotFound: some objects do not exist in the bucket; nothing is created.
    """
    wanted = list(dict.fromkeys(object_ids))
    known = records.objects.named(wanted)
    unknown = [one for one in wanted if one not in known or known[one].bucket_id != bucket_id]
    if unknown:
        raise NotFound(f"{len(unknown)} objects are not in bucket {bucket_id}: {', '.join(unknown[:5])}.")
    batch = Batch(
        batch_id=BatchId(new_id("btch", length=12)),
        namespace_id=namespace_id,
        bucket_id=bucket_id,
        status=BatchStatus.DRAFT,
        dedup_strategy=dedup,
        reembed=reembed,
        collection_ids=collection_ids,
        created_at=now,
        updated_at=now,
    )
    records.batches.add(batch)
    return records.batches.append_items(batch, wanted, now=now)


def submit(records: Records, batch: Batch, *, settings: Settings, now: str) -> Batch:
    """DRAFT → QUEUED: fix the tiers, cut the batch into parts and lay out their steps.

    A bucket without a collection has nothing to extract: such a batch is COMPLETED at once, and says so.

    Raises:
        BadRequest: the batch has no items, or names a collection without what that reads from.
        WrongState: it is not a DRAFT.
    """
    if batch.item_count == 0:
        raise BadRequest(f"Batch {batch.batch_id} has no objects; add some before you submit it.")
    every = records.collections.all(batch.namespace_id)
    if batch.type == "BUCKET":
        tiers = downstream_tiers(every, roots=[batch.bucket_id] if batch.bucket_id else [])
        if batch.collection_ids is not None:
            tiers = [[one for one in tier if one in batch.collection_ids] for tier in tiers]
            check_upstream(every, {one for tier in tiers for one in tier})
    else:
        roots = list(batch.collection_ids or [])
        below = downstream_tiers([one for one in every if one.collection_id not in roots], roots=roots)
        tiers = [[CollectionId(one) for one in roots], *below]
    tiers = [tier for tier in tiers if tier]
    size = settings.max_objects_per_run
    count = -(-batch.item_count // size)
    changed = {
        "dag_tiers": tiers,
        "collection_ids": [one for tier in tiers for one in tier],
        "task_id": batch.task_id or TaskId(new_id("task")),
        "submitted_at": now,
        "part_size": size,
    }
    queued = records.batches.move(batch, BatchStatus.QUEUED, now=now, **changed)
    if not tiers:
        return end(
            records, queued, BatchStatus.COMPLETED, now=now, error="No collection reads from this bucket: nothing was extracted."
        )
    parts = [
        BatchPart(
            batch_id=batch.batch_id, part=n, partition_key=partition_key(batch.batch_id, n, count), status=PartStatus.QUEUED
        )
        for n in range(1, count + 1)
    ]
    steps = [
        Step(batch_id=batch.batch_id, part=part.part, collection_id=collection_id, tier=tier, status=PartStatus.QUEUED)
        for part in parts
        for tier, collection_ids in enumerate(tiers)
        for collection_id in collection_ids
    ]
    records.batches.add_parts(parts, steps)
    return queued


def check_upstream(every: Sequence[Collection], chosen: AbstractSet[str]) -> None:
    """Raises BadRequest when a chosen collection reads from others and none of them is chosen."""
    for collection in every:
        above = collection.source.collection_ids
        if collection.collection_id in chosen and above and not any(one in chosen for one in above):
            raise BadRequest(
                f"Collection {collection.collection_id} reads from {', '.join(above)}, which is left out: name that too."
            )


def claim(records: Records, *, limit: int, now: str, accepts: Callable[[Sequence[str]], bool] = lambda _: True) -> list[Claim]:
    """Claim queued parts for Dagster, oldest first; those whose collections are not `accepts`ed yet stay queued."""
    return records.batches.claim(limit=limit, now=now, accepts=accepts)


def open_step(records: Records, key: str, collection_id: CollectionId, *, run_id: str, now: str) -> tuple[Batch, BatchPart, Step]:
    """Begin, or go on with, one collection's way through a part; the batch is PROCESSING from here.

    A part that has ended may be materialised again from the Dagster UI: its step starts from the beginning, its batch stays as it is.

    Raises:
        NotFound: the part does not exist, or has no step for the collection.
        Superseded: the batch was canceled.
    """
    part = records.batches.part(key)
    if part is None:
        raise NotFound(f"Partition {key!r} belongs to no batch.")
    batch = records.batches.get(part.batch_id)
    steps = [one for one in records.batches.steps(part.batch_id, part=part.part) if one.collection_id == collection_id]
    if not steps:
        raise NotFound(f"Batch {part.batch_id} has no work for collection {collection_id}.")
    current = steps[0]
    if batch.status is BatchStatus.CANCELED:
        raise Superseded(f"Batch {batch.batch_id} was canceled; run {run_id} does nothing.")
    if batch.status.is_terminal:
        again = {name: getattr(current, name) for name in ("batch_id", "part", "collection_id", "tier", "status")}
        return batch, part, Step(**again)
    if records.batches.move_part(part, PartStatus.RUNNING, run_id=run_id, heartbeat_at=now):
        part = part.model_copy(update={"status": PartStatus.RUNNING, "run_id": run_id})
    if batch.status is BatchStatus.QUEUED and not records.batches.start(batch.batch_id, now=now):
        return open_step(records, key, collection_id, run_id=run_id, now=now)  # another part's run, or a cancel, was quicker
    batch = records.batches.get(batch.batch_id)
    if current.status is not PartStatus.COMPLETED:
        current = current.model_copy(update={"status": PartStatus.RUNNING, "started_at": current.started_at or now})
        records.batches.save_step(current)
    return batch, part, current


def advance_step(
    records: Records, batch: Batch, part: BatchPart, step: Step, *, run_id: str, now: str, is_news: bool = True
) -> None:
    """Record a step's progress together with what it wrote.

    Args:
        is_news: the step got on, so that the part does not stall; else only its run is alive.

    Raises:
        Superseded: the part is not this run's any more; the caller's transaction must not commit.
    """
    if batch.status.is_terminal:
        return
    stalls = CAREFUL - 1 if part.is_careful else 0  # what has killed runs may do so again: the next is careful, too
    if not records.batches.beat(part, run_id=run_id, now=now, stalls=stalls if is_news else None):
        raise Superseded(f"Part {part.partition_key} was canceled or taken over by another run; run {run_id} stops.")
    records.batches.save_step(step)


def finish_step(
    records: Records, batch: Batch, part: BatchPart, step: Step, *, run_id: str, settings: Settings, now: str
) -> BatchStatus:
    """End a step; with the last one the part ends, with the last part the batch. Returns the batch's status."""
    is_news = step.status is not PartStatus.COMPLETED  # else an earlier run ended it, and died in one that follows
    done = step.model_copy(update={"status": PartStatus.COMPLETED, "completed_at": now}) if is_news else step
    advance_step(records, batch, part, done, run_id=run_id, now=now, is_news=is_news)
    if batch.status.is_terminal or any(
        not one.status.is_terminal for one in records.batches.steps(batch.batch_id, part=part.part)
    ):
        return batch.status
    records.batches.move_part(part, PartStatus.COMPLETED, heartbeat_at=now)
    _settle_objects(records, batch, part, now=now)
    return settle(records, batch.batch_id, settings=settings, now=now).status


def _settle_objects(records: Records, batch: Batch, part: BatchPart, *, now: str, error: str = "") -> None:
    """Say of a part's objects how they came out; a later batch that took one of them, because it changed meanwhile, says it.

    Args:
        error: why the part ended before its end; what it has not come to fails with it.
    """
    if batch.type != "BUCKET":
        return
    start = (part.part - 1) * batch.part_size
    failures = [one for one in records.batches.failures_of_part(batch.batch_id, part.part) if one.object_id]
    failed = {str(one.object_id): one.error for one in failures}
    hopeless = {str(one.object_id) for one in failures if one.error_type in HOPELESS}
    items = records.batches.items(batch.batch_id, start=start, stop=start + batch.part_size)
    records.objects.hold_all(item for _, item in items)
    if error:
        undone = _undone(records, part, start)
        failed |= {item: error for position, item in items if position >= undone and item not in failed}
    later = records.objects.taken_later([item for _, item in items], batch)
    done = [item for _, item in items if item not in failed and item not in later]
    records.objects.set_status(done, ObjectStatus.COMPLETED, now=now)
    records.objects.fail({item: words for item, words in failed.items() if item not in later}, hopeless=hopeless, now=now)


def _undone(records: Records, part: BatchPart, start: int) -> int:
    """The position of the first item that some collection has not come to."""
    steps = [one for one in records.batches.steps(part.batch_id, part=part.part) if one.status is not PartStatus.COMPLETED]
    if any(one.tier or not one.after for one in steps):
        return start  # how far a later tier has come, no position says
    return min((int(one.after) + 1 for one in steps), default=start)


def settle(records: Records, batch_id: BatchId, *, settings: Settings, now: str) -> Batch:
    """Fold the parts into the batch's status; ends the batch, with its event, when all of them have ended."""
    records.batches.hold(batch_id)
    batch = records.batches.get(batch_id)
    parts = records.batches.parts(batch_id)
    status = fold([part.status for part in parts])
    if batch.status.is_terminal or not status.is_terminal:
        return batch
    failed = records.batches.failed_items(batch_id)
    errors = [part.error for part in parts if part.error]
    if status is BatchStatus.COMPLETED and batch.item_count and failed / batch.item_count > settings.max_failed_ratio:
        status = BatchStatus.FAILED
        errors = [
            f"{failed} of {batch.item_count} objects failed, more than the allowed share of {settings.max_failed_ratio:.0%}."
        ]
    return end(records, batch, status, now=now, error="; ".join(errors)[:2000] or None)


def end(records: Records, batch: Batch, status: BatchStatus, *, now: str, error: str | None = None) -> Batch:
    """Take a batch to a terminal status, with its totals and its event in the same transaction."""
    totals = records.batches.totals(batch.batch_id)
    failed = records.batches.failed_items(batch.batch_id)
    ended = records.batches.move(batch, status, now=now, documents_written=totals["documents"], failed_count=failed, error=error)
    event = {BatchStatus.COMPLETED: "batch.completed", BatchStatus.FAILED: "batch.failed"}.get(status, "batch.canceled")
    payload = {"batch_id": batch.batch_id, "status": status, "documents_written": totals["documents"], "failed_objects": failed}
    records.events.add(
        event,
        namespace_id=batch.namespace_id,
        resource=("batch", f"{batch.batch_id}"),
        payload={**payload, "failure_reason": error, "completed_at": now},
        now=now,
    )
    if status is BatchStatus.COMPLETED:
        _tell_collections(records, ended, now=now)
    return ended


def _tell_collections(records: Records, batch: Batch, *, now: str) -> None:
    """One event per collection that the batch wrote into, in the two names that clients know."""
    every = records.batches.steps(batch.batch_id)
    for collection_id in batch.collection_ids or ():
        steps = [one for one in every if one.collection_id == collection_id]
        documents = sum(one.documents for one in steps)
        payload = {"collection_id": collection_id, "batch_id": batch.batch_id, "documents_written": documents}
        for event in ("collection.documents.written", "collection.documents.batch_completed"):
            resource = ("collection", str(collection_id))
            records.events.add(event, namespace_id=batch.namespace_id, resource=resource, payload=payload, now=now)


def fail_part(records: Records, part: BatchPart, error: str, *, settings: Settings, now: str, retry: bool) -> Batch | None:
    """A part's run ended without finishing it: queue it again, or fail it when `retry` is off or run after run records nothing.

    Before it is failed, the inputs that the last of these runs were about fail alone, and the part goes on behind them.

    None when the part had ended already: the last step of a run records the end itself, and must not be undone.
    """
    running: tuple[PartStatus, ...] = (PartStatus.CLAIMED, PartStatus.RUNNING)
    stalls = part.stalls + 1
    if retry and stalls < MOST_STALLS:
        again = {"run_id": None, "run_key": None, "error": None, "stalls": stalls}
        if not records.batches.move_part(part, PartStatus.QUEUED, only_from=running, **again):
            return None
        if stalls < MAX_STALLS or lay_aside(records, part, error, now=now):
            return records.batches.get(part.batch_id)
        running = (PartStatus.QUEUED,)
    last = {"run_id": part.run_id, "run_key": part.run_key, "error": error[:2000]}
    if not records.batches.move_part(part, PartStatus.FAILED, only_from=running, **last):
        return None
    _settle_objects(records, records.batches.get(part.batch_id), part, now=now, error=error[:2000] or "Its run failed.")
    return settle(records, part.batch_id, settings=settings, now=now)


def cancel(records: Records, batch_id: BatchId, *, namespace_id: NamespaceId | None = None, now: str) -> tuple[Batch, list[str]]:
    """CANCELED, now; the run ids of parts that were running, for the caller to stop. Their next write finds itself superseded.

    Raises:
        WrongState: the batch has ended.
    """
    batch = records.batches.get(batch_id, namespace_id=namespace_id)
    if batch.status.is_terminal:
        raise WrongState(f"Batch {batch_id} is {batch.status}; only a batch that has not ended can be canceled.")
    runs = _cancel_parts(records, batch_id)
    records.batches.hold(batch_id)  # after its parts, as runs do; what a run or a submission did meanwhile is seen from here
    batch = records.batches.get(batch_id)
    if batch.status.is_terminal:
        raise WrongState(f"Batch {batch_id} was {batch.status} when it was to be canceled.")
    runs += _cancel_parts(records, batch_id)
    return end(records, batch, BatchStatus.CANCELED, now=now), runs


def _cancel_parts(records: Records, batch_id: BatchId) -> list[str]:
    """Cancel the parts that have not ended; the ids of their runs."""
    open_ = [part for part in records.batches.parts(batch_id) if not part.status.is_terminal]
    return [part.run_id for part in open_ if records.batches.move_part(part, PartStatus.CANCELED) and part.run_id]


def failure_words(error: BaseException) -> tuple[str, str]:
    """(type, message) of an error as a batch records it: our own errors speak for themselves, others say what they are."""
    if isinstance(error, MixpeekError):
        return error.code, error.message
    return type(error).__name__, f"{type(error).__name__}: {error}"[:2000]
