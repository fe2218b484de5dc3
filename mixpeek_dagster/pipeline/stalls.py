"""Runs that die without recording anything, and the input that they die of: it fails alone, and its part goes on behind it."""

from typing import NamedTuple

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.errors import NotFound
from mixpeek_dagster.models.batches import Batch, BatchPart, Failure, PartStatus, Step
from mixpeek_dagster.models.ids import ObjectId


class _Input(NamedTuple):
    """`place` is what a step's `after` becomes once it is done."""

    place: str
    item_id: str
    object_id: ObjectId | None
    words: str


def lay_aside(records: Records, part: BatchPart, error: str, *, now: str) -> bool:
    """Fail the input that the last run of a part has died of, and move the part's step behind it; False where it cannot be told which
    it is."""
    batch = records.batches.get(part.batch_id)
    steps = [one for one in records.batches.steps(part.batch_id, part=part.part) if one.status is PartStatus.RUNNING]
    if part.status is not PartStatus.RUNNING or len(steps) != 1:
        return False
    (running,) = steps
    deadly = _next_document(records, batch, part, running) if running.tier else _next_item(records, batch, part, running)
    if deadly is None:
        return False
    failure = Failure(
        batch_id=batch.batch_id,
        collection_id=running.collection_id,
        item_id=deadly.item_id,
        object_id=deadly.object_id,
        part=part.part,
        error_type="run_died",
        error=f"Runs died, {part.stalls + 1} in a row, the last one when it worked on {deadly.words} alone: {error}"[:2000],
        created_at=now,
    )
    records.batches.add_failures([failure])
    behind = {"after": deadly.place, "inputs": running.inputs + 1, "failed": running.failed + 1}
    records.batches.save_step(running.model_copy(update=behind))
    return True


def _next_item(records: Records, batch: Batch, part: BatchPart, step: Step) -> _Input | None:
    """What a step of the first tier comes to next: an item of its batch, an object or a document."""
    position = int(step.after) + 1 if step.after else (part.part - 1) * batch.part_size
    items = records.batches.items(batch.batch_id, start=position, stop=min(position + 1, part.part * batch.part_size))
    for _, item in items:
        if batch.type == "BUCKET":
            return _Input(str(position), item, ObjectId(item), "it")
        root = [one.root_object_id for one in records.documents.named([item]).values()]
        return _Input(str(position), item, root[0] if root else None, f"document {item}")
    return None


def _next_document(records: Records, batch: Batch, part: BatchPart, step: Step) -> _Input | None:
    """What a step of a later tier comes to next: a document that the part has written into a collection above."""
    try:
        collection = records.collections.get(step.collection_id, namespace_id=batch.namespace_id)
    except NotFound:  # deleted since
        return None
    above = collection.source.collection_ids
    for found in records.documents.of_part(part.partition_key, above, after=step.after, limit=1):
        return _Input(found.document_id, found.document_id, found.root_object_id, f"document {found.document_id}")
    return None
