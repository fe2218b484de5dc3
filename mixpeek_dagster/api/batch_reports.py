"""What there is to say about one batch: audit, estimate, diagnosis, logs."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import Query
from pydantic import BaseModel

from mixpeek_dagster.api.batch_answers import FailureAnswer, failure
from mixpeek_dagster.api.batches import InBatch
from mixpeek_dagster.api.deps import Opened
from mixpeek_dagster.api.routes import new_router
from mixpeek_dagster.models.batches import Step
from mixpeek_dagster.pipeline import batch_reports as pipeline

router = new_router("batches", prefix="/v1/buckets/{bucket_identifier}/batches/{batch_id}")


class TierAudit(BaseModel):
    """What became of the inputs of one tier."""

    tier_num: int
    submitted: int
    processed: int
    failed: int
    skipped: int
    lost: int
    balanced: bool
    documents_written: int
    notes: list[str]


class Audit(BaseModel):
    """Whether every object is accounted for."""

    batch_id: str
    status: str
    object_count: int
    tiers: list[TierAudit]
    all_balanced: bool
    has_lost_objects: bool


class Estimate(BaseModel):
    """What submitting a batch does. Nothing is billed: the credits are zero."""

    batch_id: str
    collection_ids: list[str]
    dedup_strategy: str
    object_count: int
    already_extracted_count: int
    estimated_credits: int = 0
    estimated_usd: float = 0.0
    estimated_repay_credits: int = 0
    features: list[str]
    extractors: list[str]
    documents_to_remove: int
    warnings: list[str] = []


class PartAnswer(BaseModel):
    """One part of a batch: a partition of its collections in Dagster, materialised by one run at a time."""

    partition_key: str
    status: str
    run_id: str | None
    attempt: int
    claimed_at: str | None
    heartbeat_at: str | None
    error: str | None


class Diagnosis(BaseModel):
    """Why a batch is as it is."""

    batch_id: str
    status: str
    status_message: str | None
    timing: dict[str, str | None]
    object_count: int
    parts: list[PartAnswer]
    errors: dict[str, int]
    failed_documents: list[FailureAnswer]
    recommendations: list[str]


class TierLog(BaseModel):
    """What is recorded about one tier, line by line; the full logs are with its runs in the Dagster UI."""

    tier_num: int
    collection_ids: list[str]
    run_ids: list[str]
    lines: list[str]


class Logs(BaseModel):
    """The recorded way of a batch, tier by tier."""

    batch_id: str
    logs: list[TierLog]
    message: str = "The full logs are with the runs, by their ids, in the Dagster UI."


@router.get("/audit")
def audit(warehouse: Opened, batch: InBatch) -> Audit:
    """Account for every object, tier by tier."""
    return Audit(**pipeline.audit(warehouse, batch))


@router.post("/estimate-cost")
def estimate(warehouse: Opened, batch: InBatch) -> Estimate:
    """What submitting the batch would do: how many objects have documents already, and how many of those would be replaced."""
    found = pipeline.estimate(warehouse, batch)
    warnings = [] if found.collections else ["No collection reads from this bucket: nothing would be extracted."]
    return Estimate(
        batch_id=batch.batch_id,
        collection_ids=[one.collection_id for one in found.collections],
        dedup_strategy=batch.dedup_strategy,
        object_count=batch.item_count,
        already_extracted_count=found.done,
        features=sorted({vector.feature_uri for one in found.collections for vector in one.vectors}),
        extractors=sorted({one.feature_extractor.extractor_id for one in found.collections}),
        documents_to_remove=found.replaced,
        warnings=warnings,
    )


@router.get("/diagnose")
def diagnose(warehouse: Opened, batch: InBatch) -> Diagnosis:
    """Why the batch is as it is: its runs, its errors by type, and what to do."""
    found = pipeline.diagnose(warehouse, batch)
    names = ("created_at", "submitted_at", "started_at", "completed_at", "updated_at")
    return Diagnosis(
        batch_id=batch.batch_id,
        status=batch.status,
        status_message=batch.error,
        timing={name: getattr(batch, name) for name in names},
        object_count=batch.item_count,
        parts=[PartAnswer(**one.model_dump(include=set(PartAnswer.model_fields))) for one in found.parts],
        errors=dict(found.errors),
        failed_documents=[failure(one) for one in found.failures],
        recommendations=list(found.recommendations),
    )


@router.get("/logs")
def logs(warehouse: Opened, batch: InBatch, tier_num: Annotated[int | None, Query(ge=0, le=1000)] = None) -> Logs:
    """What is recorded about the batch's runs, tier by tier."""
    found = pipeline.diagnose(warehouse, batch)
    runs = list(dict.fromkeys(one.run_id for one in found.parts if one.run_id))
    wanted = [number for number in range(len(batch.dag_tiers)) if tier_num in (None, number)]
    tiers = [
        TierLog(
            tier_num=number,
            collection_ids=list(batch.dag_tiers[number]),
            run_ids=runs,
            lines=_lines([one for one in found.steps if one.tier == number]),
        )
        for number in wanted
    ]
    return Logs(batch_id=batch.batch_id, logs=tiers)


def _lines(steps: Sequence[Step]) -> list[str]:
    lines = [f"{one.started_at} {one.collection_id} part {one.part}: started" for one in steps if one.started_at]
    lines += [f"{one.completed_at} {one.collection_id} part {one.part}: {_counts(one)}" for one in steps if one.completed_at]
    return sorted(lines)


def _counts(one: Step) -> str:
    made = f"{one.inputs} read, {one.documents} documents written, {one.failed} failed, {one.skipped} skipped"
    return f"{made}; {one.inferred} inferred, {one.reused} reused, in {one.seconds:.1f} s"
