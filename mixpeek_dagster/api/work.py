"""`/v1/tasks`: work that outlives its request. A batch answers for its own task."""

from typing import Annotated

from fastapi import Body, Path
from pydantic import BaseModel, Field

from mixpeek_dagster.api.batch_answers import task_of
from mixpeek_dagster.api.batches import Status
from mixpeek_dagster.api.deps import By, InNamespace, Opened
from mixpeek_dagster.api.documents import Deleted
from mixpeek_dagster.api.paging import Asked, PageBody, Pagination, Paging, pagination
from mixpeek_dagster.api.routes import new_router
from mixpeek_dagster.api.tasks import TaskAnswer, task_answer
from mixpeek_dagster.errors import Forbidden, NotFound, WrongState
from mixpeek_dagster.models.batches import Batch, BatchStatus
from mixpeek_dagster.models.ids import NamespaceId
from mixpeek_dagster.models.tasks import Task, TaskStatus
from mixpeek_dagster.pipeline.batches import cancel
from mixpeek_dagster.pipeline.warehouse import Warehouse

router = new_router("tasks")
TaskPath = Annotated[str, Path(min_length=1, max_length=255, description="Task id")]
_BATCH_TYPES = {"api_buckets_batches_process": "BUCKET", "api_collections_trigger": "COLLECTION"}
_MEANT: dict[str, list[BatchStatus]] = {"PENDING": [BatchStatus.QUEUED], "IN_PROGRESS": [BatchStatus.PROCESSING]}


class TaskPageBody(PageBody):
    """Which tasks."""

    status: Status | None = None
    task_type: str | None = Field(default=None, max_length=100)


class TaskList(BaseModel):
    """One page of tasks, the newest first."""

    results: list[TaskAnswer]
    pagination: Pagination


@router.get("/tasks/{task_id}")
def get(task_id: TaskPath, warehouse: Opened, namespace: InNamespace) -> TaskAnswer:
    """Read a task; poll until its status is COMPLETED, FAILED or CANCELED."""
    found = _find(warehouse, task_id, namespace.namespace_id)
    if not isinstance(found, Batch):
        return task_answer(found)
    if found.status is not BatchStatus.QUEUED:
        return task_of(found)
    with warehouse.catalog.reading() as records:
        return task_of(found).model_copy(update={"queue_position": records.batches.queue_position(found)})


@router.post("/tasks/list")
def list_by_body(
    warehouse: Opened, namespace: InNamespace, asked: Asked, body: Annotated[TaskPageBody | None, Body()] = None
) -> TaskList:
    """List tasks, those of batches among them."""
    body = body or TaskPageBody()
    paging = Paging.of(asked, body)
    until = paging.offset + paging.limit
    statuses = None if body.status is None else _MEANT.get(body.status, [one for one in BatchStatus if one == body.status])
    with warehouse.catalog.reading() as records:
        found: list[Task | Batch] = []
        total = 0
        if body.task_type not in _BATCH_TYPES:
            plain = None if body.status is None else [body.status]
            tasks, total = records.tasks.page(
                namespace.namespace_id, statuses=plain, task_type=body.task_type, limit=until, offset=0
            )
            found += tasks
        if body.task_type is None or body.task_type in _BATCH_TYPES:
            batches, more = records.batches.page(
                namespace_id=namespace.namespace_id,
                statuses=statuses,
                type=_BATCH_TYPES.get(body.task_type or ""),
                with_task=True,
                limit=until,
            )
            found += batches
            total += more
    found.sort(key=lambda one: one.created_at, reverse=True)
    page = [task_of(one) if isinstance(one, Batch) else task_answer(one) for one in found[paging.offset : until]]
    return TaskList(results=page, pagination=pagination(paging, total=total, returned=len(page)))


@router.delete("/tasks/{task_id}")
def kill(task_id: TaskPath, warehouse: Opened, namespace: InNamespace, caller: By) -> Deleted:
    """Cancel a task that has not ended."""
    found = _find(warehouse, task_id, namespace.namespace_id)
    if not isinstance(found, Batch) and found.namespace_id is None and caller.namespace_id is not None:
        raise Forbidden(f"API key {caller.key_id} may not cancel tasks of the organization.")
    with warehouse.catalog.transaction() as records:
        if isinstance(found, Batch):
            cancel(records, found.batch_id, now=warehouse.now())
        elif found.status not in (TaskStatus.PENDING, TaskStatus.PROCESSING):
            raise WrongState(f"Task {task_id} is {found.status}; only a task that has not ended can be canceled.")
        else:
            records.tasks.end(found.task_id, TaskStatus.CANCELED, now=warehouse.now())
    return Deleted(message="Task canceled")


def _find(warehouse: Warehouse, task_id: str, namespace_id: NamespaceId) -> Task | Batch:
    with warehouse.catalog.reading() as records:
        batch = records.batches.by_task(task_id, namespace_id=namespace_id)
        if batch is not None:
            return batch
        try:
            return records.tasks.get(task_id, namespace_id=namespace_id)
        except NotFound:
            raise NotFound(f"No task {task_id!r} in namespace {namespace_id}.") from None
