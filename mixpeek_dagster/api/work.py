"""`/v1/tasks`: work that outlives its request. A batch answers for its own task."""

from typing import Annotated

from fastapi import Body, Path
from pydantic import BaseModel, Field

from mixpeek_dagster.api.batch_answers import task_of
from mixpeek_dagster.api.batches import MEANT, Status
from mixpeek_dagster.api.deps import By, InNamespace, Opened
from mixpeek_dagster.api.documents import Deleted
from mixpeek_dagster.api.paging import Asked, PageBody, Pagination, Paging, pagination
from mixpeek_dagster.api.routes import new_router
from mixpeek_dagster.api.tasks import TaskAnswer, task_answer
from mixpeek_dagster.catalog.lists import Listing
from mixpeek_dagster.errors import Forbidden, NotFound, WrongState
from mixpeek_dagster.models.batches import Batch, BatchStatus
from mixpeek_dagster.models.ids import NamespaceId
from mixpeek_dagster.models.tasks import Task, TaskStatus
from mixpeek_dagster.pipeline.batches import cancel
from mixpeek_dagster.pipeline.warehouse import Warehouse

router = new_router("tasks")
TaskPath = Annotated[str, Path(min_length=1, max_length=255, description="Task id")]


class TaskPageBody(PageBody):
    """Which tasks. Filters, search and sorting see them as they are answered: `additional_data.batch_id`, `inputs.reason` …"""

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
    """List tasks, those of batches among them, the newest first unless sorted."""
    body = body or TaskPageBody()
    paging = Paging.of(asked, body)
    listing = Listing(
        filter=body.parsed_filters(),
        search=body.search,
        sort=[(one.field, one.direction == "desc") for one in body.sorting],
        limit=paging.limit,
        offset=paging.offset,
    )
    meant = None if body.status is None else MEANT.get(body.status, [])
    with warehouse.catalog.reading() as records:
        listed, total = records.tasks.page(
            namespace.namespace_id, listing, status=body.status, batch_statuses=meant, task_type=body.task_type
        )
        tasks = records.tasks.named([one.task_id for one in listed if one.batch_id is None])
        batches = records.batches.named([one.batch_id for one in listed if one.batch_id is not None])
    page = [task_answer(tasks[one.task_id]) if one.batch_id is None else task_of(batches[one.batch_id]) for one in listed]
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
