"""Settle what nobody reported: parts whose run ended, vanished or never came, and documents left between catalog and index."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

from mixpeek_dagster.models.batches import BatchPart, PartStatus
from mixpeek_dagster.models.documents import DocumentState
from mixpeek_dagster.models.values import iso
from mixpeek_dagster.pipeline.batches import fail_part, settle
from mixpeek_dagster.pipeline.events import KEPT
from mixpeek_dagster.pipeline.indexing import index_documents
from mixpeek_dagster.pipeline.removal import finish_removals
from mixpeek_dagster.pipeline.uploads import sweep_uploads
from mixpeek_dagster.pipeline.warehouse import Warehouse

GRACE_S = 60.0
FEATURES_KEPT = timedelta(days=7)
JOBS_KEPT = timedelta(days=30)


class RunState(Enum):
    """How the run of a part is doing. UNKNOWN: no such run is recorded."""

    ALIVE = "alive"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Reconciled:
    """What a reconciliation found to do."""

    parts: int = 0
    indexed: int = 0
    removed: int = 0
    features: int = 0
    uploads: int = 0
    events: int = 0
    jobs: int = 0
    problem: str = ""
    """Why uploads were left that should have been given up, where the blob store did not let them."""

    @property
    def words(self) -> str:
        if not any(vars(self).values()):
            return "Nothing to settle."
        words = (
            f"Settled {self.parts} parts, indexed {self.indexed} documents, finished {self.removed} deletes, "
            f"dropped {self.features} unused features, {self.events} old events and {self.jobs} passes of syncs, "
            f"gave up {self.uploads} unconfirmed uploads."
        )
        return f"{words} Others could not be given up: {self.problem}" if self.problem else words


def run_ended(warehouse: Warehouse, run_id: str, run_key: str | None, state: RunState, message: str) -> int:
    """Settle the parts that a run had when it ended; how many."""
    with warehouse.catalog.reading() as records:
        parts = [
            part
            for part in records.batches.unfinished_parts()
            if part.run_id == run_id or (part.run_id is None and run_key is not None and part.run_key == run_key)
        ]
    return sum(_settle(warehouse, part, state, message) for part in parts)


def reconcile(warehouse: Warehouse, run_state: Callable[[BatchPart], RunState], *, grace_s: float = GRACE_S) -> Reconciled:
    """Compare every part that was handed out with its run, and heal what a crash left half done.

    Args:
        grace_s: how long a part without any run is believed to be still on its way there.
    """
    with warehouse.catalog.reading() as records:
        parts = records.batches.unfinished_parts()
    settled = 0
    late = warehouse.now(plus_s=-grace_s)
    for part in parts:
        state = run_state(part)
        if state is RunState.ALIVE:
            continue
        if state is RunState.UNKNOWN and max(part.heartbeat_at or "", part.claimed_at or "") > late:
            continue  # Dagster may still be about to create the run
        settled += _settle(
            warehouse, part, state, f"Run {part.run_id or part.run_key} of part {part.partition_key} is {state.value}."
        )
    settled += release_stranded(warehouse)
    before = iso(warehouse.clock() - FEATURES_KEPT)
    with warehouse.catalog.transaction() as records:
        features = records.documents.remove_unused_features(before=before, limit=2_000)
        events = records.events.prune(before=iso(warehouse.clock() - KEPT), limit=5_000)
        jobs = records.syncs.prune_jobs(before=iso(warehouse.clock() - JOBS_KEPT), limit=5_000)
    indexed, removed = index_pending(warehouse), finish_removals(warehouse)
    swept = sweep_uploads(warehouse)
    return Reconciled(settled, indexed, removed, features, swept.uploads, events, jobs, swept.problem)


def release_stranded(warehouse: Warehouse) -> int:
    """Take collections that were deleted or disabled since out of queued batches, which would wait for them for ever; how many parts."""
    released = 0
    with warehouse.catalog.transaction() as records:
        alive = {one.collection_id for one in records.collections.all() if one.enabled}
        for batch in records.batches.waiting():
            gone = [one for one in batch.collection_ids or () if one not in alive]
            if not gone:
                continue
            now = warehouse.now()
            left = [one for one in batch.collection_ids or () if one in alive]
            records.batches.set(batch.batch_id, now=now, collection_ids=left)
            for part in records.batches.parts(batch.batch_id):
                steps = [one for one in records.batches.steps(batch.batch_id, part=part.part) if not one.status.is_terminal]
                for step in steps:
                    if step.collection_id in gone:
                        records.batches.save_step(step.model_copy(update={"status": PartStatus.CANCELED, "completed_at": now}))
                if all(step.collection_id in gone for step in steps):
                    released += records.batches.move_part(part, PartStatus.COMPLETED, only_from=[PartStatus.QUEUED])
            settle(records, batch.batch_id, settings=warehouse.settings, now=now)
    return released


def _settle(warehouse: Warehouse, part: BatchPart, state: RunState, message: str) -> bool:
    now = warehouse.now()
    with warehouse.catalog.transaction() as records:
        if state is RunState.CANCELED:
            moved = records.batches.move_part(
                part,
                PartStatus.CANCELED,
                only_from=(PartStatus.CLAIMED, PartStatus.RUNNING),
                error="Its run was canceled in Dagster.",
            )
            if moved:
                settle(records, part.batch_id, settings=warehouse.settings, now=now)
            return moved
        return fail_part(records, part, message, settings=warehouse.settings, now=now, retry=True) is not None


def index_pending(warehouse: Warehouse) -> int:
    """Bring documents into the vector index that were recorded over a minute ago and have not reached it."""
    if not warehouse.index.is_projection:
        return 0
    before, count = warehouse.now(plus_s=-GRACE_S), 0
    with warehouse.catalog.reading() as records:
        collections = records.collections.all()
    for collection in collections:
        while True:
            with warehouse.catalog.reading() as records:
                waiting = records.documents.not_indexed(
                    collection.collection_id, before=before, limit=500, state=DocumentState.PENDING
                )
            if not waiting:
                break
            index_documents(warehouse, collection, waiting)
            count += len(waiting)
    return count
