"""How clients see syncs, their passes and their dead letters: values that the SDK reads, with the seed's words beside them."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from mixpeek_dagster.api.connections import sdk_provider
from mixpeek_dagster.api.organization import ORGANIZATION, USER
from mixpeek_dagster.catalog.syncs import JobRow, KeyState, SourceKey
from mixpeek_dagster.models.ids import derived_id
from mixpeek_dagster.models.objects import StoredObject
from mixpeek_dagster.models.syncs import Counters, Sync, SyncStatus

SDK_INTERVAL_S = 30
SDK_CHUNK = 100


class SyncStats(BaseModel):
    """What the last pass did, or the one under way has done so far."""

    last_run_objects_discovered: int = 0
    last_run_objects_synced: int = 0
    last_run_objects_skipped: int = 0
    last_run_objects_failed: int = 0
    last_run_objects_verified: int = 0
    last_run_bytes_synced: int = 0
    last_run_duration_seconds: float = 0.0
    last_run_throughput_objects_per_min: float = 0.0
    last_run_avg_object_size_bytes: int = 0
    last_run_at: str | None = None


class SyncAnswer(BaseModel):
    """A sync. `sync_config` repeats what was asked for in the seed's words; the root holds what the SDK can read."""

    sync_config_id: str
    sync_id: str
    bucket_id: str
    connection_id: str
    internal_id: str = ORGANIZATION
    namespace_id: str
    provider: str
    provider_type: str
    source_path: str
    sync_mode: str
    requested_sync_mode: str
    sync_config: dict[str, Any]
    file_filters: dict[str, Any] | None = None
    schema_mapping: dict[str, Any] | None = None
    polling_interval_seconds: int
    batch_size: int
    batch_chunk_size: int
    skip_duplicates: bool = True
    skip_batch_submission: bool = False
    batch_collection_ids: list[str] | None = None
    reconcile: dict[str, Any]
    status: str
    is_active: bool
    paused: bool
    locked: bool
    locked_by_worker_id: str | None = None
    lock_expires_at: str | None = None
    pending_full_sync: bool = False
    total_files_discovered: int = 0
    total_files_synced: int = 0
    total_files_failed: int = 0
    total_bytes_synced: int = 0
    sync_progress: dict[str, Any] | None = None
    stats: SyncStats
    sync_run_counter: int = 0
    current_sync_run_id: str | None = None
    last_sync_at: str | None = None
    next_sync_at: str | None = None
    last_error: str | None = None
    consecutive_failures: int = 0
    max_objects_per_run: int
    description: str | None = None
    metadata: dict[str, Any] | None = None
    created_by_user_id: str = USER
    created_at: str
    updated_at: str


class SyncJob(BaseModel):
    """One pass; `started_at` is null while it waits for its turn."""

    sync_job_id: str
    sync_config_id: str
    internal_id: str = ORGANIZATION
    namespace_id: str
    status: str
    trigger: str
    total_files: int = 0
    files_synced: int = 0
    files_failed: int = 0
    files_verified: int = 0
    started_at: str | None = None
    completed_at: str | None = None
    updated_at: str
    error: str | None = None
    throughput_files_per_min: float = 0.0
    progress: dict[str, Any] = {}


class SyncMetrics(BaseModel):
    """How a sync is doing."""

    sync_config_id: str
    status: str
    is_active: bool
    paused: bool
    total_files_discovered: int
    total_files_synced: int
    total_files_failed: int
    batches_created: int
    sync_run_counter: int
    consecutive_failures: int
    last_error: str | None
    last_sync_at: str | None
    next_sync_at: str | None
    seconds_since_last_sync: int | None
    is_stale: bool
    intervals_since_last_sync: float | None
    stale_after_seconds: int
    failure_rate: float
    healthy: bool
    dlq_total: int
    dlq_by_error: dict[str, int]
    running_job: bool
    stalled: bool
    last_job: dict[str, Any] | None


class DeadLetter(BaseModel):
    """A file that cannot become an object as it is."""

    dlq_id: str
    sync_config_id: str
    source_object_id: str
    source_path: str
    error_type: str
    error_message: str
    retry_count: int = 0
    max_retries_reached: bool = True
    object_id: str | None = None
    internal_id: str = ORGANIZATION
    namespace_id: str
    bucket_id: str


def answer(sync: Sync) -> SyncAnswer:
    """A sync as clients see it."""
    spec, last = sync.spec, sync.last_counters or Counters()
    seed_mode = spec.requested_sync_mode or spec.sync_mode
    shared = spec.model_dump(
        mode="json",
        include={"schema_mapping", "skip_duplicates", "skip_batch_submission", "max_objects_per_run", "description", "metadata"},
    )
    filters = spec.file_filters.model_dump(mode="json", exclude_defaults=True)
    is_under_way = sync.cursor.job_id is not None
    return SyncAnswer(
        **shared,
        **sync.model_dump(mode="json", include=_SAME),
        sync_config_id=sync.sync_id,
        provider_type=sdk_provider(sync.provider),
        source_path=spec.source_path,
        sync_mode=spec.sync_mode,
        requested_sync_mode=seed_mode,
        sync_config={
            "source_path": spec.source_path,
            "sync_mode": seed_mode,
            "polling_interval": spec.polling_interval_seconds,
            "polling_interval_seconds": spec.polling_interval_seconds,
            "file_filters": filters,
        },
        file_filters=filters or None,
        polling_interval_seconds=max(SDK_INTERVAL_S, spec.polling_interval_seconds),
        batch_size=min(SDK_CHUNK, spec.batch_chunk_size),
        batch_chunk_size=spec.batch_chunk_size,
        batch_collection_ids=list(spec.batch_collection_ids) if spec.batch_collection_ids is not None else None,
        reconcile=spec.reconcile.model_dump(mode="json"),
        is_active=sync.status in (SyncStatus.PENDING, SyncStatus.ACTIVE),
        paused=sync.status is SyncStatus.SUSPENDED,
        locked=sync.locked_by is not None,
        locked_by_worker_id=sync.locked_by,
        pending_full_sync=sync.pending_full,
        total_files_discovered=last.listed,
        total_files_synced=max(0, last.listed - last.skipped - last.failed),
        total_files_failed=last.failed,
        total_bytes_synced=last.bytes,
        sync_progress=sync.cursor.counters.model_dump() if is_under_way else None,
        stats=_stats(sync.cursor.counters if is_under_way else last, at=sync.last_pass_at),
        sync_run_counter=sync.passes,
        current_sync_run_id=sync.cursor.job_id,
        last_sync_at=sync.last_pass_at,
        next_sync_at=sync.next_pass_at,
        last_error=sync.last_error[:1000] if sync.last_error else None,
    )


def _stats(counters: Counters, *, at: str | None) -> SyncStats:
    taken = max(0, counters.listed - counters.skipped - counters.failed)
    return SyncStats(
        last_run_objects_discovered=counters.listed,
        last_run_objects_synced=taken,
        last_run_objects_skipped=counters.skipped,
        last_run_objects_failed=counters.failed,
        last_run_objects_verified=counters.unchanged,
        last_run_bytes_synced=counters.bytes,
        last_run_duration_seconds=round(counters.seconds, 3),
        last_run_throughput_objects_per_min=_per_minute(counters),
        last_run_avg_object_size_bytes=counters.bytes // max(1, counters.listed - counters.skipped),
        last_run_at=at,
    )


def _per_minute(counters: Counters) -> float:
    return round(60 * counters.listed / counters.seconds, 1) if counters.seconds else 0.0


_SAME = {
    *("sync_id", "bucket_id", "connection_id", "namespace_id", "provider", "status"),
    *("lock_expires_at", "consecutive_failures", "created_at", "updated_at"),
}


def job_answer(sync: Sync, row: JobRow) -> SyncJob:
    """A pass as clients see it; the counters of one that runs are the sync's own."""
    is_current = sync.cursor.job_id == row.sync_job_id
    counters = sync.cursor.counters if is_current else Counters(**row.counters)
    return SyncJob(
        sync_job_id=row.sync_job_id,
        sync_config_id=sync.sync_id,
        namespace_id=sync.namespace_id,
        status=row.status,
        trigger=row.trigger,
        total_files=counters.listed,
        files_synced=max(0, counters.listed - counters.skipped - counters.failed),
        files_failed=counters.failed,
        files_verified=counters.unchanged,
        throughput_files_per_min=_per_minute(counters),
        started_at=row.started_at,
        completed_at=row.completed_at,
        updated_at=row.updated_at,
        error=row.error[:1000] if row.error else None,
        progress=counters.model_dump(),
    )


def metrics_of(
    sync: Sync,
    *,
    clock: Callable[[], datetime],
    passes: int,
    batches: int,
    last: SyncJob | None,
    dead: int,
    by_error: dict[str, int],
) -> SyncMetrics:
    """What a monitor asks for."""
    seen = answer(sync)
    interval = sync.spec.polling_interval_seconds
    stale_after = max(2 * interval, 120)
    since = int((clock() - datetime.fromisoformat(sync.last_pass_at)).total_seconds()) if sync.last_pass_at else None
    is_stale = since is not None and since > stale_after and seen.is_active
    running = sync.cursor.job_id is not None
    expired = bool(sync.lock_expires_at and datetime.fromisoformat(sync.lock_expires_at) < clock())
    same = {name: getattr(seen, name) for name in SyncMetrics.model_fields if name in SyncAnswer.model_fields}
    return SyncMetrics(
        **same,
        batches_created=batches,
        seconds_since_last_sync=since,
        is_stale=is_stale,
        intervals_since_last_sync=round(since / interval, 2) if since is not None else None,
        stale_after_seconds=stale_after,
        failure_rate=sync.consecutive_failures / max(1, passes, sync.consecutive_failures),
        healthy=not is_stale and sync.consecutive_failures == 0,
        dlq_total=dead,
        dlq_by_error=by_error,
        running_job=running,
        stalled=running and expired,
        last_job=last.model_dump() if last else None,
    )


def dead_letter(sync: Sync, letter: SourceKey | StoredObject) -> DeadLetter:
    """A registered key that has no object, or an object whose extraction failed for good, as clients see it."""
    if isinstance(letter, StoredObject):
        path = str(letter.blobs[0].key)
        return DeadLetter(
            dlq_id=derived_id("dlq", sync.sync_id, letter.object_id),
            sync_config_id=sync.sync_id,
            source_object_id=path.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
            source_path=path.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
            error_type="extraction_failed",
            error_message=letter.error or "",
            retry_count=letter.tries,
            object_id=letter.object_id,
            namespace_id=sync.namespace_id,
            bucket_id=sync.bucket_id,
        )
    key = letter
    path = key.key.decode("utf-8", "replace")
    return DeadLetter(
        dlq_id=derived_id("dlq", sync.sync_id, key.key.hex()),
        sync_config_id=sync.sync_id,
        source_object_id=path,
        source_path=path,
        error_type="source_archived" if key.state == KeyState.ARCHIVED else "schema_violation",
        error_message=key.error or "",
        namespace_id=sync.namespace_id,
        bucket_id=sync.bucket_id,
    )
