"""`/v1/buckets/{b}/syncs`: how a bucket follows a place where other people's files are."""

from typing import Annotated, Any

from fastapi import Body, Depends, Path, Query
from pydantic import BaseModel, Field

from mixpeek_dagster.api.deps import InBucket, Opened
from mixpeek_dagster.api.paging import MAX_OFFSET, Asked, PageBody, Pagination, Paging, PlainPageBody, pagination, select_page
from mixpeek_dagster.api.routes import new_router
from mixpeek_dagster.api.sync_answers import (
    DeadLetter,
    SyncAnswer,
    SyncJob,
    SyncMetrics,
    answer,
    dead_letter,
    job_answer,
    metrics_of,
)
from mixpeek_dagster.catalog.syncs import KeyState
from mixpeek_dagster.errors import Invalid
from mixpeek_dagster.models.connections import DeadLetterQuestion, SyncCreate, SyncPatch
from mixpeek_dagster.models.syncs import Sync
from mixpeek_dagster.pipeline import sync_control as pipeline
from mixpeek_dagster.pipeline.plans import PassPlan, plan_sync
from mixpeek_dagster.pipeline.sync_reports import dead_letters as dead_letters_of

router = new_router("syncs", prefix="/v1/buckets/{bucket_identifier}/syncs")
_PLAN_S = 50.0
ERROR_TYPES = {
    "schema_violation": KeyState.REJECTED,
    "source_archived": KeyState.ARCHIVED,
    "extraction_failed": None,
}


def _sync(warehouse: Opened, bucket: InBucket, sync_id: Annotated[str, Path(min_length=1, max_length=100)]) -> Sync:
    with warehouse.catalog.reading() as records:
        return records.syncs.get(sync_id, namespace_id=bucket.namespace_id, bucket_id=bucket.bucket_id)


InSync = Annotated[Sync, Depends(_sync)]


class SyncList(BaseModel):
    """One page of syncs, newest first."""

    results: list[SyncAnswer]
    pagination: Pagination
    total: int


class SyncPageBody(PageBody):
    """Which syncs to list."""

    connection_id: str | None = Field(default=None, max_length=100)
    status: str | None = Field(default=None, max_length=50)
    is_active: bool | None = None


class SyncJobList(BaseModel):
    """One page of a sync's passes, newest first."""

    results: list[SyncJob]
    pagination: Pagination
    total: int


class SyncJobPageBody(PlainPageBody):
    """Which passes to list."""

    status: str | None = Field(default=None, max_length=50)


class SyncTriggerAnswer(BaseModel):
    """The pass that was asked for."""

    sync_config_id: str
    sync_id: str
    sync_job_id: str
    status: str
    full_sync: bool
    message: str


class PlanAnswer(PassPlan):
    """What a pass would do, found out without writing anything: no job was made, so `sync_job_id` is null."""

    sync_config_id: str
    sync_job_id: None = None
    status: str = "planned"
    dry_run: bool = True
    full_sync: bool = False
    estimated_seconds: float | None = None
    message: str


class DeadLetterList(BaseModel):
    """Files that cannot become objects as they are."""

    results: list[DeadLetter]
    total: int
    pagination: Pagination


@router.post("")
def create(body: SyncCreate, warehouse: Opened, bucket: InBucket) -> SyncAnswer:
    """Make a sync: with its connection inline, or over one that exists. It starts by itself."""
    with warehouse.catalog.transaction() as records:
        return answer(pipeline.make_sync(records, body, warehouse=warehouse, bucket=bucket))


@router.get("")
def list_by_query(warehouse: Opened, bucket: InBucket, asked: Asked) -> SyncList:
    """List a bucket's syncs."""
    return list_by_body(warehouse, bucket, asked, None)


@router.post("/list")
def list_by_body(
    warehouse: Opened, bucket: InBucket, asked: Asked, body: Annotated[SyncPageBody | None, Body()] = None
) -> SyncList:
    """List a bucket's syncs of a connection or status."""
    body = body or SyncPageBody()
    paging = Paging.of(asked, body)
    with warehouse.catalog.reading() as records:
        every = [answer(one) for one in reversed(records.syncs.all(bucket.bucket_id))]
    asked_for = {"connection_id": body.connection_id, "status": body.status, "is_active": body.is_active}
    wanted = [one for one in every if all(value in (None, getattr(one, name)) for name, value in asked_for.items())]
    found, total = select_page(
        wanted,
        paging,
        body,
        record=lambda one: one.model_dump(mode="json"),
        text=lambda one: f"{one.source_path} {one.description}",
    )
    return SyncList(results=found, pagination=pagination(paging, total=total, returned=len(found)), total=total)


@router.get("/{sync_id}")
def get(sync: InSync) -> SyncAnswer:
    """Read a sync."""
    return answer(sync)


@router.patch("/{sync_id}")
def patch(body: SyncPatch, warehouse: Opened, sync: InSync) -> SyncAnswer:
    """Change what the body names; connection, path and mode stay."""
    with warehouse.catalog.transaction() as records:
        return answer(pipeline.change_sync(records, sync, body, now=warehouse.now()))


@router.delete("/{sync_id}")
def delete(warehouse: Opened, sync: InSync) -> dict[str, Any]:
    """Delete a sync. Its objects and their documents stay, and a sync that is made again for the same place takes them over."""
    with warehouse.catalog.transaction() as records:
        pipeline.delete_sync(records, warehouse, sync, now=warehouse.now())
    return {"success": True, "message": "Successfully deleted", "sync_config_id": sync.sync_id}


@router.post("/{sync_id}/trigger")
def trigger(warehouse: Opened, sync: InSync, full_sync: bool = False, dry_run: bool = False) -> SyncTriggerAnswer | PlanAnswer:
    """Ask for a pass now, whatever the polling interval; with `dry_run` only list, and say what a pass would do.

    A dry run ends after 50 seconds: `is_complete` says whether that was enough for the whole source.
    """
    if dry_run:
        return _planned(plan_sync(warehouse, sync.sync_id, budget_s=_PLAN_S, full=full_sync), full=full_sync)
    with warehouse.catalog.transaction() as records:
        job_id = pipeline.trigger(records, sync, full=full_sync, now=warehouse.now())
    ids = {"sync_config_id": sync.sync_id, "sync_id": sync.sync_id, "sync_job_id": job_id}
    words = "A pass is under way; this one follows it." if sync.locked_by else "The pass starts within seconds."
    return SyncTriggerAnswer(**ids, status="running", full_sync=full_sync, message=words)


def _planned(made: PassPlan, *, full: bool) -> PlanAnswer:
    words = made.error or "Nothing was written."
    if made.counters.held:
        words = f"{made.counters.held} deletes are more than the guard believes: a pass holds them back until they are confirmed."
    more = {"sync_config_id": made.sync_id, "full_sync": full, "estimated_seconds": made.seconds, "message": words}
    return PlanAnswer(**made.model_dump(), **more)


@router.post("/{sync_id}/confirm")
def confirm(warehouse: Opened, sync: InSync) -> SyncTriggerAnswer:
    """Allow the deletes that the last pass held back because they were too many to be believed; a pass that makes them starts."""
    with warehouse.catalog.transaction() as records:
        held = pipeline.confirm_deletes(records, sync, now=warehouse.now())
        job_id = str(records.syncs.queued_job(sync.sync_id))
    ids = {"sync_config_id": sync.sync_id, "sync_id": sync.sync_id, "sync_job_id": job_id}
    return SyncTriggerAnswer(**ids, status="running", full_sync=False, message=f"The pass deletes up to {held} objects.")


@router.post("/{sync_id}/pause")
def pause(warehouse: Opened, sync: InSync) -> SyncAnswer:
    """Stop after the page that is being taken; the place is kept."""
    with warehouse.catalog.transaction() as records:
        pipeline.pause(records, sync, now=warehouse.now())
        return answer(records.syncs.get(sync.sync_id))


@router.post("/{sync_id}/resume")
def resume(warehouse: Opened, sync: InSync) -> SyncAnswer:
    """Go on where the sync was paused."""
    with warehouse.catalog.transaction() as records:
        pipeline.resume(records, sync, now=warehouse.now())
        return answer(records.syncs.get(sync.sync_id))


@router.post("/{sync_id}/unlock")
def unlock(warehouse: Opened, sync: InSync) -> SyncAnswer:
    """Break a lock whose holder died; a holder that lives notices, and records nothing more."""
    with warehouse.catalog.transaction() as records:
        records.syncs.unlock(sync.sync_id)
        return answer(records.syncs.get(sync.sync_id))


@router.get("/{sync_id}/metrics")
def metrics(warehouse: Opened, sync: InSync) -> SyncMetrics:
    """How a sync is doing: counts, staleness, failures."""
    with warehouse.catalog.reading() as records:
        letters, dead = dead_letters_of(records, sync.sync_id, limit=1000)
        jobs, passes = records.syncs.jobs(sync.sync_id, limit=1)
        batches = records.batches.count_of_sync(sync.sync_id)
    by_error: dict[str, int] = {}
    for letter in letters:
        kind = dead_letter(sync, letter).error_type
        by_error[kind] = by_error.get(kind, 0) + 1
    last = job_answer(sync, jobs[0]) if jobs else None
    return metrics_of(sync, clock=warehouse.clock, passes=passes, batches=batches, last=last, dead=dead, by_error=by_error)


@router.get("/{sync_id}/jobs")
def jobs_by_query(warehouse: Opened, sync: InSync, asked: Asked) -> SyncJobList:
    """List a sync's passes, newest first."""
    return jobs(warehouse, sync, asked, None)


@router.post("/{sync_id}/jobs")
def jobs(warehouse: Opened, sync: InSync, asked: Asked, body: Annotated[SyncJobPageBody | None, Body()] = None) -> SyncJobList:
    """List a sync's passes of one status, or all."""
    paging = Paging.of(asked, body)
    with warehouse.catalog.reading() as records:
        status = body.status if body else None
        rows, total = records.syncs.jobs(sync.sync_id, status=status, limit=paging.limit, offset=paging.offset)
    results = [job_answer(sync, row) for row in rows]
    return SyncJobList(results=results, pagination=pagination(paging, total=total, returned=len(results)), total=total)


@router.get("/{sync_id}/jobs/{job_id}")
def job(warehouse: Opened, sync: InSync, job_id: Annotated[str, Path(min_length=1, max_length=100)]) -> SyncJob:
    """Read one pass."""
    with warehouse.catalog.reading() as records:
        return job_answer(sync, records.syncs.job(sync.sync_id, job_id))


@router.post("/{sync_id}/dlq")
def dead_letters(
    warehouse: Opened,
    sync: InSync,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, le=MAX_OFFSET)] = 0,
    body: Annotated[DeadLetterQuestion | None, Body()] = None,
) -> DeadLetterList:
    """List files that cannot become objects as they are, with the reason."""
    with warehouse.catalog.reading() as records:
        letters, total = dead_letters_of(records, sync.sync_id, _states(body), limit=limit, offset=offset)
    results = [dead_letter(sync, one) for one in letters]
    block = pagination(Paging(limit=limit, offset=offset), total=total, returned=len(results))
    return DeadLetterList(results=results, total=total, pagination=block)


@router.post("/{sync_id}/dlq/requeue")
def requeue(warehouse: Opened, sync: InSync, body: Annotated[DeadLetterQuestion | None, Body()] = None) -> dict[str, int]:
    """Try dead letters again, in a pass that starts now."""
    with warehouse.catalog.transaction() as records:
        return {"requeued": pipeline.requeue(records, sync, _states(body), now=warehouse.now())}


@router.post("/{sync_id}/dlq/bulk-mark-failed")
def give_up(warehouse: Opened, sync: InSync, body: DeadLetterQuestion) -> dict[str, int]:
    """Show dead letters no more."""
    if not body.error_types:
        raise Invalid("error_types: name at least one.")
    with warehouse.catalog.transaction() as records:
        return {"updated": pipeline.give_up(records, sync, _states(body), now=warehouse.now())}


def _states(body: DeadLetterQuestion | None) -> list[KeyState | None]:
    if body is None or body.error_types is None:
        return list(ERROR_TYPES.values())
    return [ERROR_TYPES[one] for one in body.error_types if one in ERROR_TYPES]
