"""Work that outlives its request: recorded first, then done, and done again from the record when the process died."""

import logging
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.errors import MixpeekError
from mixpeek_dagster.models.ids import NamespaceId, TaskId, new_id
from mixpeek_dagster.models.tasks import Task, TaskStatus, TaskType
from mixpeek_dagster.pipeline.warehouse import Warehouse

logger = logging.getLogger("mixpeek_dagster.tasks")
STALE_S = 60.0

Work = Callable[[Warehouse, Mapping[str, Any]], dict[str, Any]]
"""What a task does with its inputs: idempotent, since it may be done twice. Returns the outputs."""

_WORK: Mapping[TaskType, str] = {
    TaskType.DELETE_NAMESPACE: "cascade:delete_namespace",
    TaskType.DELETE_BUCKET: "cascade:delete_bucket",
    TaskType.CONFIRM_UPLOAD: "uploads:confirm_task",
    TaskType.CONFIRM_UPLOADS: "uploads:confirm_task",
    TaskType.UPDATE_DOCUMENTS: "changes:update_by_filter",
    TaskType.DELETE_DOCUMENTS: "changes:delete_by_filter",
}


def add_task(
    records: Records, task_type: TaskType, inputs: Mapping[str, Any], *, namespace_id: NamespaceId | None, now: str
) -> Task:
    """Record work to be done; whoever records it should `run_task` after the commit."""
    task = Task(
        task_id=TaskId(new_id("task")),
        namespace_id=namespace_id,
        task_type=task_type,
        inputs=dict(inputs),
        created_at=now,
        updated_at=now,
    )
    records.tasks.add(task)
    return task


def run_task(warehouse: Warehouse, task_id: TaskId) -> TaskStatus:
    """Do a task that is open, unless another process does; its status afterwards."""
    with warehouse.catalog.transaction() as records:
        task = records.tasks.get(task_id)
        if not records.tasks.begin(task, now=warehouse.now()):
            return task.status
    outputs, error = None, None
    try:
        outputs = work_of(task.task_type)(warehouse, task.inputs)
        status = TaskStatus.COMPLETED
    except MixpeekError as problem:
        status, error = TaskStatus.FAILED, problem.message[:2000]
    except Exception:  # a task ends whatever happens; the log has the stack, the caller must not see it
        logger.exception("task %s failed", task_id)
        status, error = TaskStatus.FAILED, "The server failed; its log has the reason."
    with warehouse.catalog.transaction() as records:
        records.tasks.end(task_id, status, now=warehouse.now(), outputs=outputs, error=error)
    return status


def resume_tasks(warehouse: Warehouse) -> int:
    """Do the open tasks that nobody has touched for a minute: what a dead process left. How many there were."""
    with warehouse.catalog.reading() as records:
        waiting = records.tasks.open(untouched_since=warehouse.now(plus_s=-STALE_S))
    for task_id in waiting:
        run_task(warehouse, task_id)
    return len(waiting)


def work_of(task_type: TaskType) -> Work:
    """The function behind a type of task; imported late, since such modules import this one."""
    module, _, name = _WORK[task_type].partition(":")
    work: Work = getattr(import_module(f"mixpeek_dagster.pipeline.{module}"), name)
    return work
