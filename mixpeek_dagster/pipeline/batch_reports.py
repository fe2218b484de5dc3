"""What there is to say about one batch: whether every object is accounted for, what it would do, why it is as it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mixpeek_dagster.errors import PERMANENT
from mixpeek_dagster.models.batches import Batch, BatchPart, BatchStatus, Failure, PartStatus, Step
from mixpeek_dagster.models.collections import Collection, downstream_tiers
from mixpeek_dagster.pipeline.warehouse import Warehouse

SHOWN = 20


def audit(warehouse: Warehouse, batch: Batch) -> dict[str, Any]:
    """Whether every object of a batch is accounted for, tier by tier: made documents, failed, or was skipped."""
    with warehouse.catalog.reading() as records:
        steps = records.batches.steps(batch.batch_id)
    tiers: list[Mapping[str, Any]] = []
    for number, collection_ids in enumerate(batch.dag_tiers):
        own = [one for one in steps if one.tier == number]
        seen, failed, skipped = (sum(getattr(one, name) for one in own) for name in ("inputs", "failed", "skipped"))
        submitted = batch.item_count * len(collection_ids) if number == 0 else seen
        is_done = bool(own) and all(one.status is PartStatus.COMPLETED for one in own)
        lost = max(0, submitted - seen) if is_done else 0
        tiers.append(
            {
                "tier_num": number,
                "submitted": submitted,
                "processed": seen - failed - skipped,
                "failed": failed,
                "skipped": skipped,
                "lost": lost,
                "balanced": is_done and lost == 0,
                "documents_written": sum(one.documents for one in own),
                "notes": [] if is_done else ["not finished"],
            }
        )
    return {
        "batch_id": batch.batch_id,
        "status": batch.status,
        "object_count": batch.item_count,
        "tiers": tiers,
        "all_balanced": all(one["balanced"] for one in tiers),
        "has_lost_objects": any(one["lost"] for one in tiers),
    }


@dataclass(frozen=True)
class Estimate:
    """What submitting a batch would do. `done` objects have documents already, `replaced` documents would make way for new ones."""

    collections: Sequence[Collection]
    done: int
    replaced: int


def estimate(warehouse: Warehouse, batch: Batch) -> Estimate:
    """What submitting a batch would do, or what one that was submitted had to do."""
    with warehouse.catalog.reading() as records:
        every = records.collections.all(batch.namespace_id)
        roots = [batch.bucket_id] if batch.type == "BUCKET" and batch.bucket_id else list(batch.collection_ids or ())
        reached = {one for tier in downstream_tiers(every, roots=roots) for one in tier}
        chosen = set(batch.collection_ids) if batch.collection_ids is not None else reached
        done, documents = records.batches.extracted(batch, sorted(chosen))
    collections = [one for one in every if one.collection_id in chosen]
    return Estimate(collections, done, documents if batch.dedup_strategy == "replace" else 0)


@dataclass(frozen=True)
class Diagnosis:
    """Why a batch is as it is: its parts, its steps, its errors by type, and what to do."""

    parts: Sequence[BatchPart]
    steps: Sequence[Step]
    errors: Mapping[str, int]
    failures: Sequence[Failure]
    recommendations: Sequence[str]


def diagnose(warehouse: Warehouse, batch: Batch) -> Diagnosis:
    """Everything that is recorded about the way of a batch."""
    with warehouse.catalog.reading() as records:
        parts = records.batches.parts(batch.batch_id)
        steps = records.batches.steps(batch.batch_id)
        errors = records.batches.failure_types(batch.batch_id)
        failures = records.batches.failures(batch.batch_id, limit=SHOWN)[0]
    return Diagnosis(parts, steps, errors, failures, list(_advice(batch, parts, errors)))


def _advice(batch: Batch, parts: Sequence[BatchPart], errors: Mapping[str, int]) -> Sequence[str]:
    advice = []
    if batch.status is BatchStatus.DRAFT:
        advice.append("Submit it: a DRAFT is not processed.")
    if batch.status is BatchStatus.QUEUED and not any(part.claimed_at for part in parts):
        advice.append("It waits for a run: check that the Dagster daemon is running and that its sensor `batches` is on.")
    if any(part.stalls for part in parts):
        advice.append("Runs died without recording anything: look at them in the Dagster UI, by the run ids of the parts.")
    permanent = sum(count for kind, count in errors.items() if kind in PERMANENT)
    if permanent:
        advice.append(f"{permanent} failures stay until their objects or settings are changed; see `failed_documents`.")
    if sum(errors.values()) > permanent:
        advice.append(f"{sum(errors.values()) - permanent} failures may succeed when they are tried again: POST …/retry.")
    return advice
