"""Batches: the unit of work, and its state machine as data.

    DRAFT ── submit ──▶ QUEUED ── run starts ──▶ PROCESSING ──▶ COMPLETED
      └───── cancel ──▶ CANCELED ◀── cancel ────────┘  └──────▶ FAILED

A batch is split into parts; a part is a partition and a run. The batch's status is folded from its parts.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal

from mixpeek_dagster.errors import WrongState
from mixpeek_dagster.models.ids import BatchId, BucketId, CollectionId, NamespaceId, SyncId, TaskId
from mixpeek_dagster.models.values import Value


class BatchStatus(StrEnum):
    """The seed's lifecycle."""

    DRAFT = "DRAFT"
    QUEUED = "QUEUED"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"

    @property
    def is_terminal(self) -> bool:
        return not TRANSITIONS[self]


TRANSITIONS: Mapping[BatchStatus, frozenset[BatchStatus]] = {
    BatchStatus.DRAFT: frozenset({BatchStatus.QUEUED, BatchStatus.CANCELED}),
    BatchStatus.QUEUED: frozenset({BatchStatus.PROCESSING, BatchStatus.COMPLETED, BatchStatus.FAILED, BatchStatus.CANCELED}),
    BatchStatus.PROCESSING: frozenset({BatchStatus.COMPLETED, BatchStatus.FAILED, BatchStatus.CANCELED}),
    BatchStatus.COMPLETED: frozenset(),
    BatchStatus.FAILED: frozenset(),
    BatchStatus.CANCELED: frozenset(),
}


def step(batch_id: str, current: BatchStatus, to: BatchStatus) -> BatchStatus:
    """`to`, when the state machine allows it.

    Raises:
        WrongState: it does not; the message says what would be allowed.
    """
    if to not in TRANSITIONS[current]:
        allowed = ", ".join(sorted(TRANSITIONS[current])) or "nothing: it is final"
        raise WrongState(f"Batch {batch_id} is {current}; it cannot become {to}. Allowed from here: {allowed}.")
    return to


class PartStatus(StrEnum):
    """QUEUED waits for a claim; CLAIMED was handed to Dagster; RUNNING has a run that writes."""

    QUEUED = "queued"
    CLAIMED = "claimed"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_terminal(self) -> bool:
        return self in (PartStatus.COMPLETED, PartStatus.FAILED, PartStatus.CANCELED)


def fold(parts: Sequence[PartStatus]) -> BatchStatus:
    """The status of a submitted batch with these parts: terminal only when all of them are."""
    if not all(part.is_terminal for part in parts):
        started = any(part is PartStatus.RUNNING or part.is_terminal for part in parts)
        return BatchStatus.PROCESSING if started else BatchStatus.QUEUED
    if any(part is PartStatus.FAILED for part in parts):
        return BatchStatus.FAILED
    if any(part is PartStatus.CANCELED for part in parts):
        return BatchStatus.CANCELED
    return BatchStatus.COMPLETED


DedupStrategy = Literal["skip", "replace", "force"]


class Batch(Value):
    """A batch as recorded. `dag_tiers` and `collection_ids` are fixed when it is submitted; with `reembed` no feature is used again."""

    batch_id: BatchId
    namespace_id: NamespaceId
    bucket_id: BucketId | None
    type: Literal["BUCKET", "COLLECTION"] = "BUCKET"
    status: BatchStatus
    dedup_strategy: DedupStrategy = "skip"
    reembed: bool = False
    batch_name: str | None = None
    metadata: dict[str, Any] | None = None
    collection_ids: Sequence[CollectionId] | None = None
    dag_tiers: Sequence[Sequence[CollectionId]] = ()
    sync_id: SyncId | None = None
    item_count: int = 0
    part_size: int = 0
    documents_written: int = 0
    failed_count: int = 0
    error: str | None = None
    task_id: TaskId | None = None
    webhook_url: str | None = None
    created_at: str
    updated_at: str
    submitted_at: str | None = None
    started_at: str | None = None
    completed_at: str | None = None


MAX_STALLS = 5
CAREFUL = MAX_STALLS - 1
MOST_STALLS = 3 * MAX_STALLS
"""From `MAX_STALLS` on, every stall fails the input that it names; after so many the part itself is at fault."""


class BatchPart(Value):
    """One part of a batch: a Dagster partition, run by one run at a time.

    `attempt` counts claims and fences old runs out; `stalls` counts the runs in a row that died without recording anything.
    """

    batch_id: BatchId
    part: int
    partition_key: str
    status: PartStatus
    attempt: int = 0
    stalls: int = 0
    run_id: str | None = None
    run_key: str | None = None
    claimed_at: str | None = None
    heartbeat_at: str | None = None
    error: str | None = None

    @property
    def is_careful(self) -> bool:
        """After `CAREFUL` stalls a run takes one input at a time: the next to die names it."""
        return self.stalls >= CAREFUL


class Step(Value):
    """One collection's way through one part. `after` is where a resumed run goes on."""

    batch_id: BatchId
    part: int
    collection_id: CollectionId
    tier: int
    status: PartStatus
    after: str = ""
    inputs: int = 0
    documents: int = 0
    failed: int = 0
    inferred: int = 0
    reused: int = 0
    skipped: int = 0
    seconds: float = 0.0
    started_at: str | None = None
    completed_at: str | None = None


class Failure(Value):
    """Why one input of a batch made no documents in one collection."""

    batch_id: BatchId
    collection_id: CollectionId
    item_id: str
    object_id: str | None
    part: int
    error_type: str
    error: str
    tries: int = 1
    created_at: str


def partition_key(batch_id: str, part: int, parts: int) -> str:
    """`btch_x` for a batch of one part, `btch_x.0001` … for more."""
    return batch_id if parts == 1 else f"{batch_id}.{part:04d}"
