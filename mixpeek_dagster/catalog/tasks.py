"""Records of tasks, and the list of them in which batches stand for their own."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Subquery, case, cast, func, insert, literal, null, or_, select, union_all, update
from sqlalchemy import Text as Words

from mixpeek_dagster.catalog import request_tables, tables
from mixpeek_dagster.catalog.lists import Listing, ordering, predicate
from mixpeek_dagster.catalog.operands import Sql
from mixpeek_dagster.catalog.rows import rows_named
from mixpeek_dagster.errors import NotFound
from mixpeek_dagster.models.batches import BatchStatus
from mixpeek_dagster.models.ids import BatchId, NamespaceId, TaskId
from mixpeek_dagster.models.tasks import BATCH_TASKS, Task, TaskStatus

_table, _batches = request_tables.tasks, tables.batches
_COLUMNS = ("task_id", "task_type", "status", "error", "created_at", "updated_at")
_OPEN = [TaskStatus.PENDING, TaskStatus.PROCESSING]


class Listed(NamedTuple):
    """A task of a list; the batch that answers for it, where one does."""

    task_id: TaskId
    batch_id: BatchId | None


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

    def named(self, task_ids: Iterable[TaskId]) -> dict[TaskId, Task]:
        """The tasks with these ids that exist, by id; those of batches are not among them."""
        return {TaskId(row.task_id): _value(row) for row in rows_named(self._connection, _table.c.task_id, task_ids)}

    def page(
        self,
        namespace_id: NamespaceId,
        listing: Listing,
        *,
        status: str | None = None,
        batch_statuses: Sequence[BatchStatus] | None = None,
        task_type: str | None = None,
    ) -> tuple[list[Listed], int]:
        """One page of all tasks, those of batches among them, newest first unless sorted, and how many match.

        Filters and sorting see a task as it is answered. `batch_statuses` says what `status` means for a batch.
        """
        dialect = self._connection.dialect.name
        every = _every(namespace_id, status, batch_statuses, dialect=dialect)
        columns: dict[str, Sql] = {name: every.c[name] for name in _COLUMNS}
        where = [predicate(listing.filter, columns=columns, payload=every.c.payload, dialect=dialect)]
        if task_type is not None:
            where.append(every.c.task_type == task_type)
        if listing.search:
            term = listing.search.lower()
            texts = (every.c.task_id, every.c.task_type, every.c.error, cast(every.c.payload, Words))
            where.append(or_(*(func.lower(text).contains(term, autoescape=True) for text in texts)))
        total = self._connection.execute(select(func.count()).select_from(every).where(*where)).scalar_one()
        order = ordering(listing.sort, columns=columns, payload=every.c.payload, dialect=dialect)
        query = select(every.c.task_id, every.c.batch_id).where(*where)
        query = query.order_by(*order, every.c.created_at.desc(), every.c.task_id.desc())
        rows = self._connection.execute(query.limit(listing.limit).offset(listing.offset))
        return [Listed(*row) for row in rows], total

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


def _every(
    namespace_id: NamespaceId, status: str | None, batch_statuses: Sequence[BatchStatus] | None, *, dialect: str
) -> Subquery:
    """All tasks of a namespace as rows of one kind; `payload` is what a task was given and made, as answers show it."""
    is_sqlite = dialect == "sqlite"
    an_object = func.json_object if is_sqlite else func.jsonb_build_object
    a_list = func.json_array if is_sqlite else func.jsonb_build_array

    def json(value: Sql) -> Sql:
        return func.json(value) if is_sqlite else value

    def payload(given: Sql, made: Sql) -> Sql:
        both = func.json_patch(given, made) if is_sqlite else given.op("||")(made)
        return an_object("inputs", a_list(given), "outputs", a_list(made), "additional_data", both).label("payload")

    nothing = an_object()
    plain = select(
        *(_table.c[name] for name in _COLUMNS),
        null().label("batch_id"),
        payload(json(_table.c.inputs), func.coalesce(json(_table.c.outputs), nothing)),
    ).where(_table.c.namespace_id == namespace_id)
    batch = _batches.c
    about = an_object("batch_id", batch.batch_id, "bucket_id", batch.bucket_id, "collection_ids", json(batch.collection_ids))
    done = ("documents_written", batch.documents_written, "failed_object_count", batch.failed_count)
    own = {
        "task_type": case(*((batch.type == type, literal(name)) for type, name in BATCH_TASKS.items())),
        "error": case((batch.status == BatchStatus.FAILED, batch.error)),
    }
    of_batches = select(
        *(own[name].label(name) if name in own else batch[name] for name in _COLUMNS),
        batch.batch_id,
        payload(about, an_object(*done, "object_count", batch.item_count)),
    ).where(batch.namespace_id == namespace_id, batch.task_id.is_not(None))
    if status is not None:
        plain = plain.where(_table.c.status == status)
        of_batches = of_batches.where(batch.status.in_(batch_statuses or []))
    return union_all(plain, of_batches).subquery("every")


def _value(row: Row[Any]) -> Task:
    return Task(**row._mapping)
