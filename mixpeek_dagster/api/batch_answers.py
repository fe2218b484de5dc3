"""How clients see batches and the tasks that batches answer for."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from mixpeek_dagster.api.paging import Pagination
from mixpeek_dagster.api.tasks import TaskAnswer
from mixpeek_dagster.catalog import Records
from mixpeek_dagster.models.batches import Batch, BatchStatus, Failure, PartStatus, Step
from mixpeek_dagster.models.tasks import BATCH_TASKS

MAX_OBJECT_IDS = 10_000
_LIFECYCLE = {
    BatchStatus.DRAFT: "accepted",
    BatchStatus.QUEUED: "queued",
    BatchStatus.PROCESSING: "extracting",
    BatchStatus.COMPLETED: "indexed",
    BatchStatus.FAILED: "failed",
    BatchStatus.CANCELED: "canceled",
}
_TIER_STATUS = {
    PartStatus.QUEUED: "QUEUED",
    PartStatus.CLAIMED: "QUEUED",
    PartStatus.RUNNING: "PROCESSING",
    PartStatus.COMPLETED: "COMPLETED",
    PartStatus.FAILED: "FAILED",
    PartStatus.CANCELED: "CANCELED",
}


class ExtractorJob(BaseModel):
    """One collection's way through a tier."""

    extractor_type: str
    extractor_id: str
    collection_ids: list[str]
    status: str
    started_at: str | None = None
    completed_at: str | None = None
    duration_ms: float
    documents_written: int
    documents_skipped: int


class TierAnswer(BaseModel):
    """One tier of a batch: its collections and how far they are."""

    tier_num: int
    task_id: str | None = None
    status: str
    collection_ids: list[str]
    source_type: str
    source_collection_ids: list[str] | None = None
    started_at: str | None = None
    completed_at: str | None = None
    duration_ms: float | None = None
    documents_written: int = 0
    extractor_jobs: list[ExtractorJob] = []
    errors: list[dict[str, Any]] = []


class FailureAnswer(BaseModel):
    """Why an object made no documents in a collection."""

    object_id: str
    error: str
    error_type: str
    timestamp: str
    collection_id: str | None = None
    item_id: str | None = None
    tries: int = 1


class BatchAnswer(BaseModel):
    """A batch. `status` goes DRAFT → QUEUED → PROCESSING → COMPLETED, FAILED or CANCELED; `failed_object_count` tells partial failure."""

    batch_id: str
    bucket_id: str
    namespace_id: str
    batch_name: str | None = None
    status: str
    type: str
    object_ids: list[str] | None = None
    object_count: int
    dedup_strategy: str
    effective_dedup_strategy: str
    collection_ids: list[str] | None = None
    error: str | None = None
    failure_reason: str | None = None
    failure_category: str | None = None
    error_summary: dict[str, int] | None = None
    status_message: str | None = None
    failed_objects: list[FailureAnswer] = []
    failed_object_count: int = 0
    task_id: str | None = None
    metadata: dict[str, Any] | None = None
    dag_tiers: list[list[str]] = []
    tier_tasks: list[TierAnswer] = []
    current_tier: int | None = None
    total_tiers: int = 1
    progress: dict[str, Any]
    documents_written: int = 0
    retry_count: int = 0
    max_retries: int = 3
    max_node_death_resubmits: int = 0
    max_deploy_resubmits: int = 0
    lifecycle: str | None
    lifecycle_reason: str | None
    webhook_url: str | None = None
    documents_resolvable: bool = False
    last_activity_at: str | None = None
    created_at: str
    updated_at: str
    submitted_at: str | None = None
    started_at: str | None = None
    completed_at: str | None = None


class BatchList(BaseModel):
    """One page of batches, the newest first."""

    results: list[BatchAnswer]
    total_count: int
    pagination: Pagination


def answer(records: Records, batch: Batch, *, steps: Sequence[Step] | None = None) -> BatchAnswer:
    """A batch as clients see it. Lists pass the `steps`, read for all of them at once, and leave out objects and failures."""
    whole = steps is None
    if steps is None:
        steps = records.batches.steps(batch.batch_id) if batch.submitted_at else []
    failures: Sequence[Failure] = records.batches.failures(batch.batch_id)[0] if whole and batch.submitted_at else []
    items = records.batches.items(batch.batch_id, stop=MAX_OBJECT_IDS) if whole and batch.type == "BUCKET" else None
    extractors = _extractors(records, batch) if whole and steps else {}
    errors = records.batches.failure_types(batch.batch_id) if failures else {}
    place = records.batches.queue_position(batch) if whole and batch.status is BatchStatus.QUEUED else None
    beats = [part.heartbeat_at for part in records.batches.parts(batch.batch_id)] if extractors else []
    tiers = [_tier(batch, number, steps, extractors) for number in range(len(batch.dag_tiers))]
    documents = batch.documents_written or sum(one.documents for one in steps)
    failed = batch.failed_count or len({one.item_id for one in failures})
    own = batch.model_dump(
        include={
            *("batch_id", "namespace_id", "batch_name", "type", "dedup_strategy", "error", "task_id", "metadata", "webhook_url"),
            *("created_at", "updated_at", "submitted_at", "started_at", "completed_at"),
        }
    )
    return BatchAnswer(
        **own,
        bucket_id=batch.bucket_id or "",
        status=batch.status,
        object_ids=None if items is None else [item for _, item in items],
        object_count=batch.item_count,
        effective_dedup_strategy=batch.dedup_strategy,
        collection_ids=None if batch.collection_ids is None else list(batch.collection_ids),
        failure_reason=batch.error if batch.status is BatchStatus.FAILED else None,
        failure_category=_category(batch),
        error_summary=errors or None,
        status_message=batch.error,
        failed_objects=[failure(one) for one in failures],
        failed_object_count=failed,
        dag_tiers=[list(tier) for tier in batch.dag_tiers],
        tier_tasks=tiers,
        current_tier=_current(tiers),
        total_tiers=max(1, len(batch.dag_tiers)),
        progress={**_progress(batch, steps), "documents_written": documents, "queue_position": place},
        documents_written=documents,
        documents_resolvable=documents > 0,
        last_activity_at=max([batch.updated_at, *(one for one in beats if one)]),
        lifecycle=_LIFECYCLE[batch.status],
        lifecycle_reason=batch.error,
    )


def failure(one: Failure) -> FailureAnswer:
    """A failure as clients see it."""
    own = one.model_dump(include={"error", "error_type", "collection_id", "item_id", "tries"})
    return FailureAnswer(object_id=one.object_id or one.item_id, timestamp=one.created_at, **own)


def task_of(batch: Batch, **more: Any) -> TaskAnswer:
    """The task that a batch answers for."""
    about = {"batch_id": batch.batch_id, "bucket_id": batch.bucket_id, "collection_ids": list(batch.collection_ids or ())}
    done = {"documents_written": batch.documents_written, "failed_object_count": batch.failed_count}
    return TaskAnswer(
        task_id=batch.task_id or "",
        task_type=BATCH_TASKS[batch.type],
        status=batch.status,
        inputs=[about],
        outputs=[done] if batch.status.is_terminal else [],
        additional_data={**about, **done, "object_count": batch.item_count, **more},
        error=batch.error if batch.status is BatchStatus.FAILED else None,
        cancellation=more.get("cancellation"),
    )


def _extractors(records: Records, batch: Batch) -> dict[str, tuple[str, str]]:
    """(name, id) of the extractor of every collection that the batch goes through."""
    every = {one.collection_id: one.feature_extractor for one in records.collections.all(batch.namespace_id)}
    return {
        one: (every[one].feature_extractor_name, every[one].extractor_id) for one in batch.collection_ids or () if one in every
    }


def _category(batch: Batch) -> str | None:
    """Why it FAILED, in the SDK's words: too many objects did, or its runs died."""
    if batch.status is not BatchStatus.FAILED:
        return None
    return "pipeline" if batch.failed_count else "infrastructure"


def _job(collection_id: str, steps: Sequence[Step], extractor: tuple[str, str]) -> ExtractorJob:
    own = [one for one in steps if one.collection_id == collection_id]
    statuses = {_TIER_STATUS[one.status] for one in own}
    ended = [one.completed_at for one in own if one.completed_at]
    return ExtractorJob(
        extractor_type=extractor[0],
        extractor_id=extractor[1],
        collection_ids=[collection_id],
        status=statuses.pop() if len(statuses) == 1 else "PROCESSING",
        started_at=min((one.started_at for one in own if one.started_at), default=None),
        completed_at=max(ended) if len(ended) == len(own) else None,
        duration_ms=round(1000 * sum(one.seconds for one in own), 1),
        documents_written=sum(one.documents for one in own),
        documents_skipped=sum(one.skipped for one in own),
    )


def _tier(batch: Batch, number: int, steps: Sequence[Step], extractors: Mapping[str, tuple[str, str]]) -> TierAnswer:
    own = [one for one in steps if one.tier == number]
    started = min((one.started_at for one in own if one.started_at), default=None)
    ended = [one.completed_at for one in own]
    is_first_of_bucket = number == 0 and batch.type == "BUCKET"
    above = list(batch.dag_tiers[number - 1]) if number else None
    return TierAnswer(
        tier_num=number,
        task_id=f"{batch.task_id}-tier-{number}" if batch.task_id else None,
        status=_tier_status(batch, own),
        collection_ids=list(batch.dag_tiers[number]),
        source_type="bucket" if is_first_of_bucket else "collection",
        source_collection_ids=above,
        started_at=started,
        completed_at=max(one for one in ended if one) if own and all(ended) else None,
        duration_ms=round(1000 * sum(one.seconds for one in own), 1),
        documents_written=sum(one.documents for one in own),
        extractor_jobs=[_job(one, own, extractors[one]) for one in batch.dag_tiers[number] if one in extractors],
    )


def _tier_status(batch: Batch, steps: Sequence[Step]) -> str:
    statuses = {_TIER_STATUS[one.status] for one in steps}
    if len(statuses) == 1 and statuses != {"QUEUED"}:
        return statuses.pop()
    if batch.status.is_terminal:
        return str(batch.status)
    return "PROCESSING" if statuses - {"QUEUED"} else "QUEUED"


def _current(tiers: Sequence[TierAnswer]) -> int | None:
    open_ = [one.tier_num for one in tiers if one.status in ("QUEUED", "PROCESSING")]
    return open_[0] if open_ else len(tiers) - 1 if tiers else None


def _progress(batch: Batch, steps: Sequence[Step]) -> dict[str, Any]:
    """How far the first tier is; speed and remaining seconds are of the time that its runs have worked."""
    first = [one for one in steps if one.tier == 0]
    width = max(1, len(batch.dag_tiers[0]) if batch.dag_tiers else 1)
    processed = batch.item_count if batch.status is BatchStatus.COMPLETED else sum(one.inputs for one in first) // width
    percent = 100.0 * processed / batch.item_count if batch.item_count else 0.0
    skipped, failed = (sum(getattr(one, name) for one in first) for name in ("skipped", "failed"))
    seconds = sum(one.seconds for one in steps)
    speed = round(processed / seconds, 2) if seconds and processed else None
    left = 0 if batch.status.is_terminal else batch.item_count - processed
    return {
        "processed": processed,
        "total": batch.item_count,
        "percent": round(min(100.0, percent), 1),
        "items_per_second": speed,
        "eta_seconds": round(left / speed, 1) if speed else None,
        "errors": sum(one.failed for one in steps),
        "documents_skipped": sum(one.skipped for one in steps),
        "objects_extracted": max(0, processed - skipped - failed),
        "objects_skipped": skipped,
        "objects_failed": failed,
    }
