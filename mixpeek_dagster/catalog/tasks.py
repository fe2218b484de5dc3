"""Records of tasks."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from mixpeek_dagster.catalog import request_tables
from mixpeek_dagster.catalog.rows import page
from mixpeek_dagster.errors import NotFound
from mixpeek_dagster.models.ids import NamespaceId, TaskId
from mixpeek_dagster.models.tasks import Task, TaskStatus

_table = request_tables.tasks
_OPEN = [TaskStatus.PENDING, TaskStatus.PROCESSING]


class TaskRecords:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, task: Task) -> None:
        self._connection.execute(insert(_table), task.model_dump(mode="json"))

    def get(self, task_id: str, *, namespace_id: NamespaceId | None = None) -> Task:
        """By id; tasks without a namespace are seen from every one.

        Raises:
            NotFound: there is none.
        """
        row = self._connection.execute(select(_table).where(_table.c.task_id == task_id)).first()
        if row is None or (namespace_id is not None and row.namespace_id not in (None, namespace_id)):
            raise NotFound(f"No task {task_id!r}.")
        return _value(row)

    def page(
        self,
        namespace_id: NamespaceId,
        *,
        statuses: Sequence[str] | None = None,
        task_type: str | None = None,
        limit: int,
        offset: int,
    ) -> tuple[list[Task], int]:
        """Newest first."""
        query = select(_table).where(_table.c.namespace_id == namespace_id)
        if statuses is not None:
            query = query.where(_table.c.status.in_(statuses))
        if task_type is not None:
            query = query.where(_table.c.task_type == task_type)
        order = [_table.c.created_at.desc(), _table.c.task_id.desc()]
        rows, total = page(self._connection, query, order=order, limit=limit, offset=offset)
        return [_value(row) for row in rows], total

    def open(self, *, untouched_since: str) -> list[TaskId]:
        """Tasks that nobody has worked on since a time: their process died, or has not come to them."""
        query = select(_table.c.task_id).where(_table.c.status.in_(_OPEN), _table.c.updated_at < untouched_since)
        return [TaskId(row[0]) for row in self._connection.execute(query.order_by(_table.c.created_at))]

    def begin(self, task: Task, *, now: str) -> bool:
        """Take a task to work on it; False when another process was faster or it has ended."""
        mine = (_table.c.task_id == task.task_id, _table.c.status.in_(_OPEN), _table.c.updated_at == task.updated_at)
        done = self._connection.execute(update(_table).where(*mine).values(status=TaskStatus.PROCESSING, updated_at=now))
        return done.rowcount == 1

    def end(
        self, task_id: TaskId, status: TaskStatus, *, now: str, outputs: dict[str, Any] | None = None, error: str | None = None
    ) -> None:
        """Record how it ended, unless it had ended before."""
        values = {"status": status, "outputs": outputs, "error": error, "updated_at": now, "completed_at": now}
        self._connection.execute(update(_table).where(_table.c.task_id == task_id, _table.c.status.in_(_OPEN)).values(values))


def _value(row: Row[Any]) -> Task:
    return Task(**row._mapping)
