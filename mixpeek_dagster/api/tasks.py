"""How clients see a task."""

from typing import Any

from pydantic import BaseModel

from mixpeek_dagster.models.tasks import Task


class TaskAnswer(BaseModel):
    """A task; poll `GET /v1/tasks/{task_id}` until its status is COMPLETED, FAILED or CANCELED."""

    task_id: str
    task_type: str
    status: str
    inputs: list[Any] = []
    outputs: list[Any] = []
    additional_data: dict[str, Any] = {}
    error: str | None = None
    cancellation: dict[str, int] | None = None
    queue_position: int | None = None


def task_answer(task: Task, **more: Any) -> TaskAnswer:
    """A task as clients see it; `more` goes beside what it was given."""
    return TaskAnswer(
        task_id=task.task_id,
        task_type=task.task_type,
        status=task.status,
        inputs=[task.inputs],
        outputs=[task.outputs] if task.outputs else [],
        additional_data={**task.inputs, **(task.outputs or {}), **more},
        error=task.error,
    )
