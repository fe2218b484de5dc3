"""Records of batches, their parts, the steps of each part, and what failed in them.

Every change of status is a compare-and-set: the row says what it was, the number of changed rows says whether it still was.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Text, cast, delete, func, insert, select, update

from mixpeek_dagster.catalog import tables
from mixpeek_dagster.catalog.rows import chunks, hold, page, rows_named
from mixpeek_dagster.errors import NotFound, WrongState
from mixpeek_dagster.models.batches import Batch, BatchPart, BatchStatus, Failure, PartStatus, Step, step
from mixpeek_dagster.models.documents import DocumentState
from mixpeek_dagster.models.ids import BatchId, BucketId, CollectionId, NamespaceId, SyncId

_batches, _parts, _items = tables.batches, tables.batch_parts, tables.batch_items
_steps, _failures = tables.part_steps, tables.batch_failures

_OPEN_PARTS = [PartStatus.QUEUED, PartStatus.CLAIMED, PartStatus.RUNNING]


class Claim(NamedTuple):
    """A part that was just claimed, and what its run has to materialise."""

    part: BatchPart
    namespace_id: NamespaceId
    collection_ids: Sequence[CollectionId]
    items: int


class BatchRecords:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # Batches

    def add(self, batch: Batch) -> None:
        self._connection.execute(insert(_batches), batch.model_dump(mode="json"))

    def get(self, batch_id: str, *, namespace_id: NamespaceId | None = None, bucket_id: BucketId | None = None) -> Batch:
        """By id.

        Raises:
            NotFound: there is none in that scope.
        """
        query = select(_batches).where(_batches.c.batch_id == batch_id)
        if namespace_id is not None:
            query = query.where(_batches.c.namespace_id == namespace_id)
        if bucket_id is not None:
            query = query.where(_batches.c.bucket_id == bucket_id)
        row = self._connection.execute(query).first()
        if row is None:
            raise NotFound(f"No batch {batch_id!r}.")
        return _batch(row)

    def named(self, batch_ids: Iterable[BatchId]) -> dict[BatchId, Batch]:
        """The batches with these ids that exist, by id."""
        return {BatchId(row.batch_id): _batch(row) for row in rows_named(self._connection, _batches.c.batch_id, batch_ids)}

    def by_task(self, task_id: str, *, namespace_id: NamespaceId) -> Batch | None:
        """The batch that answers for a task."""
        query = select(_batches).where(_batches.c.task_id == task_id, _batches.c.namespace_id == namespace_id)
        row = self._connection.execute(query).first()
        return None if row is None else _batch(row)

    def find(self, batch_id: str) -> Batch | None:
        row = self._connection.execute(select(_batches).where(_batches.c.batch_id == batch_id)).first()
        return None if row is None else _batch(row)

    def page(
        self,
        *,
        namespace_id: NamespaceId | None = None,
        bucket_id: BucketId | None = None,
        statuses: Sequence[BatchStatus] | None = None,
        collection_id: str | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> tuple[list[Batch], int]:
        """Newest first."""
        query = select(_batches)
        if namespace_id is not None:
            query = query.where(_batches.c.namespace_id == namespace_id)
        if bucket_id is not None:
            query = query.where(_batches.c.bucket_id == bucket_id)
        if statuses is not None:
            query = query.where(_batches.c.status.in_(statuses))
        if collection_id is not None:
            query = query.where(cast(_batches.c.collection_ids, Text).contains(f'"{collection_id}"', autoescape=True))
        rows, total = page(
            self._connection, query, order=[_batches.c.created_at.desc(), _batches.c.batch_id.desc()], limit=limit, offset=offset
        )
        return [_batch(row) for row in rows], total

    def open_of_sync(self, sync_id: SyncId) -> list[Batch]:
        """The sync's DRAFT batches: at most one is being filled, others wait for a submission the sync does not make."""
        query = select(_batches).where(_batches.c.sync_id == sync_id, _batches.c.status == BatchStatus.DRAFT)
        return [_batch(row) for row in self._connection.execute(query.order_by(_batches.c.created_at, _batches.c.batch_id))]

    def waiting(self) -> list[Batch]:
        """Batches that have a queued part, oldest first."""
        queued = select(_parts.c.batch_id).where(_parts.c.status == PartStatus.QUEUED)
        query = select(_batches).where(_batches.c.batch_id.in_(queued)).order_by(_batches.c.submitted_at).limit(1_000)
        return [_batch(row) for row in self._connection.execute(query)]

    def sharing_items(self, batch: Batch) -> list[Batch]:
        """Batches under way that hold an item of this one, oldest first."""
        theirs, mine = _items.alias("theirs"), _items.alias("mine")
        shared = select(mine.c.item_id).join(theirs, theirs.c.item_id == mine.c.item_id)
        shared = shared.where(mine.c.batch_id == batch.batch_id, theirs.c.batch_id == _batches.c.batch_id)
        active = _batches.c.status.in_([BatchStatus.QUEUED, BatchStatus.PROCESSING])
        query = select(_batches).where(active, _batches.c.bucket_id == batch.bucket_id, _batches.c.batch_id != batch.batch_id)
        rows = self._connection.execute(query.where(shared.correlate(_batches).exists()).order_by(_batches.c.submitted_at))
        return [_batch(row) for row in rows]

    def count_of_sync(self, sync_id: SyncId) -> int:
        return self._connection.execute(select(func.count()).where(_batches.c.sync_id == sync_id)).scalar_one()

    def done_between(self, since: str, until: str) -> dict[str, int]:
        """What batches did that were completed between two times: how many, their objects, and the documents they wrote."""
        sums = [func.coalesce(func.sum(_batches.c[name]), 0) for name in ("item_count", "documents_written")]
        query = select(func.count(), *sums).where(_batches.c.status == BatchStatus.COMPLETED)
        row = self._connection.execute(query.where(_batches.c.completed_at.between(since, until))).one()
        names = ("batches_completed", "objects_processed", "documents_written")
        return {name: int(value) for name, value in zip(names, row)}

    def move(self, batch: Batch, to: BatchStatus, *, now: str, **values: Any) -> Batch:
        """Take a batch to another status.

        Raises:
            WrongState: the state machine does not allow it, or another process moved the batch first.
        """
        status = step(batch.batch_id, batch.status, to)
        if to in (BatchStatus.COMPLETED, BatchStatus.FAILED, BatchStatus.CANCELED):
            values.setdefault("completed_at", now)
        changed = values | {"status": status, "updated_at": now}
        where = [_batches.c.batch_id == batch.batch_id, _batches.c.status == batch.status]
        if to is BatchStatus.QUEUED:  # with all its items
            where.append(_batches.c.item_count == batch.item_count)
        if self._connection.execute(update(_batches).where(*where).values(changed)).rowcount != 1:
            raise _changed_meanwhile(batch.batch_id)
        return batch.model_copy(update=changed)

    def start(self, batch_id: BatchId, *, now: str) -> bool:
        """QUEUED → PROCESSING; False when it was not QUEUED any more, as of two parts that begin at once one comes second."""
        changed = {"status": BatchStatus.PROCESSING, "started_at": now, "updated_at": now}
        where = [_batches.c.batch_id == batch_id, _batches.c.status == BatchStatus.QUEUED]
        return self._connection.execute(update(_batches).where(*where).values(changed)).rowcount == 1

    def hold(self, batch_id: str) -> None:
        """Keep other transactions from changing it until this one ends: of the two that end its last parts, the second sees both."""
        hold(self._connection, _batches.c.batch_id, batch_id)

    def set(self, batch_id: BatchId, *, now: str, **values: Any) -> None:
        self._connection.execute(update(_batches).where(_batches.c.batch_id == batch_id).values(updated_at=now, **values))

    def remove(self, batch_id: BatchId) -> None:
        self._connection.execute(delete(_batches).where(_batches.c.batch_id == batch_id))

    # Items

    def append_items(self, batch: Batch, item_ids: Sequence[str], *, now: str) -> Batch:
        """Add items at the end of a DRAFT batch.

        Raises:
            WrongState: another process submitted or filled it first.
        """
        mine = (_batches.c.batch_id == batch.batch_id, _batches.c.status == BatchStatus.DRAFT)
        count = batch.item_count + len(item_ids)
        grown = update(_batches).where(*mine, _batches.c.item_count == batch.item_count)
        if self._connection.execute(grown.values(item_count=count, updated_at=now)).rowcount != 1:
            raise _changed_meanwhile(batch.batch_id)
        rows = [
            {"batch_id": batch.batch_id, "position": position, "item_id": item}
            for position, item in enumerate(item_ids, batch.item_count)
        ]
        if rows:
            self._connection.execute(insert(_items), rows)
        return batch.model_copy(update={"item_count": count})

    def items(self, batch_id: BatchId, *, start: int = 0, stop: int | None = None) -> list[tuple[int, str]]:
        """(position, item id) for start <= position < stop."""
        query = select(_items.c.position, _items.c.item_id).where(_items.c.batch_id == batch_id, _items.c.position >= start)
        if stop is not None:
            query = query.where(_items.c.position < stop)
        return [(row[0], row[1]) for row in self._connection.execute(query.order_by(_items.c.position))]

    def extracted(self, batch: Batch, collection_ids: Sequence[str]) -> tuple[int, int]:
        """How many items have documents in these collections already, and how many documents those are."""
        documents = tables.documents
        item = documents.c.root_object_id if batch.type == "BUCKET" else documents.c.source_document_id
        source = _items.join(documents, _items.c.item_id == item)
        counts = select(func.count(func.distinct(_items.c.item_id)), func.count()).select_from(source)
        wanted = counts.where(_items.c.batch_id == batch.batch_id, documents.c.collection_id.in_(collection_ids))
        items, found = self._connection.execute(wanted.where(documents.c.state != DocumentState.DELETING)).one()
        return int(items), int(found)

    def queue_position(self, batch: Batch) -> int:
        """Its place among the namespace's queued batches, from 1."""
        before = select(func.count()).where(
            _batches.c.namespace_id == batch.namespace_id,
            _batches.c.status == BatchStatus.QUEUED,
            _batches.c.submitted_at < (batch.submitted_at or ""),
        )
        return int(self._connection.execute(before).scalar_one()) + 1

    # Parts

    def add_parts(self, parts: Sequence[BatchPart], steps: Sequence[Step]) -> None:
        self._connection.execute(insert(_parts), [part.model_dump(mode="json") for part in parts])
        if steps:
            self._connection.execute(insert(_steps), [one.model_dump(mode="json") for one in steps])

    def has_queued(self) -> bool:
        return (
            self._connection.execute(select(_parts.c.part).where(_parts.c.status == PartStatus.QUEUED).limit(1)).first()
            is not None
        )

    def claim(self, *, limit: int, now: str, accepts: Callable[[Sequence[str]], bool]) -> list[Claim]:
        """Claim queued parts, oldest batch first; a part goes to one caller only."""
        query = (
            select(_parts, _batches.c.namespace_id, _batches.c.collection_ids, _batches.c.item_count, _batches.c.part_size)
            .join(_batches, _batches.c.batch_id == _parts.c.batch_id)
            .where(_parts.c.status == PartStatus.QUEUED)
            .order_by(_batches.c.submitted_at, _parts.c.batch_id, _parts.c.part)
            .limit(10 * limit)
        )
        claimed: list[Claim] = []
        for row in self._connection.execute(query).all():
            if len(claimed) == limit:
                break
            if not accepts(row.collection_ids or []):
                continue
            part = _part(row)
            changed = {"status": PartStatus.CLAIMED, "attempt": part.attempt + 1, "claimed_at": now}
            done = self._connection.execute(
                update(_parts).where(*_is(part), _parts.c.status == PartStatus.QUEUED).values(changed)
            )
            if done.rowcount == 1:
                claimed.append(
                    Claim(
                        part.model_copy(update=changed),
                        row.namespace_id,
                        row.collection_ids or [],
                        min(row.item_count, row.part_size),
                    )
                )
        return claimed

    def set_run_key(self, parts: Sequence[BatchPart], run_key: str) -> None:
        """Remember by which key Dagster knows the run these parts were handed to."""
        for part in parts:
            self._connection.execute(update(_parts).where(*_is(part)).values(run_key=run_key))

    def part(self, partition_key: str) -> BatchPart | None:
        row = self._connection.execute(select(_parts).where(_parts.c.partition_key == partition_key)).first()
        return None if row is None else _part(row)

    def parts(self, batch_id: BatchId) -> list[BatchPart]:
        return [
            _part(row)
            for row in self._connection.execute(select(_parts).where(_parts.c.batch_id == batch_id).order_by(_parts.c.part))
        ]

    def unfinished_parts(self) -> list[BatchPart]:
        """Every part that was handed to Dagster and has not ended."""
        query = select(_parts).where(_parts.c.status.in_([PartStatus.CLAIMED, PartStatus.RUNNING]))
        return [_part(row) for row in self._connection.execute(query)]

    def move_part(self, part: BatchPart, to: PartStatus, *, only_from: Iterable[PartStatus] = _OPEN_PARTS, **values: Any) -> bool:
        """Take a part to another status; False when it was in none of `only_from`, or another run had it."""
        where = [*_is(part), _parts.c.status.in_(list(only_from))]
        done = self._connection.execute(update(_parts).where(*where).values(status=to, **values))
        return done.rowcount == 1

    def beat(self, part: BatchPart, *, run_id: str, now: str, stalls: int | None) -> bool:
        """Say that the run is alive, and gets on unless `stalls` is None; False when the part is not its any more (canceled, or taken
        over by a later run)."""
        where = [*_is(part), _parts.c.run_id == run_id, _parts.c.status == PartStatus.RUNNING]
        alive = {"heartbeat_at": now} | ({} if stalls is None else {"stalls": stalls})
        return self._connection.execute(update(_parts).where(*where).values(alive)).rowcount == 1

    # Steps

    def steps(self, batch_id: BatchId, *, part: int | None = None) -> list[Step]:
        query = select(_steps).where(_steps.c.batch_id == batch_id)
        if part is not None:
            query = query.where(_steps.c.part == part)
        return [
            Step(**row._mapping)
            for row in self._connection.execute(query.order_by(_steps.c.part, _steps.c.tier, _steps.c.collection_id))
        ]

    def steps_of(self, batch_ids: Sequence[BatchId]) -> dict[BatchId, list[Step]]:
        """The steps of several batches."""
        found: dict[BatchId, list[Step]] = {}
        for row in rows_named(self._connection, _steps.c.batch_id, batch_ids):
            found.setdefault(row.batch_id, []).append(Step(**row._mapping))
        return found

    def save_step(self, one: Step) -> None:
        where = [_steps.c.batch_id == one.batch_id, _steps.c.part == one.part, _steps.c.collection_id == one.collection_id]
        self._connection.execute(
            update(_steps).where(*where).values(one.model_dump(mode="json", exclude={"batch_id", "part", "collection_id"}))
        )

    def totals(self, batch_id: BatchId) -> Mapping[str, int]:
        """Sums over all steps: inputs, documents, failed, inferred, reused, skipped."""
        names = ["inputs", "documents", "failed", "inferred", "reused", "skipped"]
        query = select(*[func.coalesce(func.sum(_steps.c[name]), 0).label(name) for name in names]).where(
            _steps.c.batch_id == batch_id
        )
        row = self._connection.execute(query).one()
        return {name: int(row._mapping[name]) for name in names}

    def backlog(self, sync_id: SyncId) -> int:
        """Objects of a sync in batches that have not ended."""
        open_ = [status for status in BatchStatus if not status.is_terminal]
        query = select(func.coalesce(func.sum(_batches.c.item_count), 0)).where(_batches.c.sync_id == sync_id)
        return int(self._connection.execute(query.where(_batches.c.status.in_(open_))).scalar_one())

    def speeds(self, namespace_id: NamespaceId) -> Mapping[CollectionId, Mapping[str, float]]:
        """By collection, what its steps have done so far: inputs, documents, inferred, and seconds of work."""
        names = ["inputs", "documents", "inferred", "seconds"]
        query = (
            select(_steps.c.collection_id, *[func.sum(_steps.c[name]).label(name) for name in names])
            .join(_batches, _batches.c.batch_id == _steps.c.batch_id)
            .where(_batches.c.namespace_id == namespace_id)
            .group_by(_steps.c.collection_id)
        )
        rows = self._connection.execute(query)
        return {row.collection_id: {name: float(row._mapping[name] or 0) for name in names} for row in rows}

    # Failures

    def add_failures(self, failures: Sequence[Failure]) -> None:
        """Record failures; one that is recorded already counts one more try."""
        for failure in failures:
            key = [
                _failures.c.batch_id == failure.batch_id,
                _failures.c.collection_id == failure.collection_id,
                _failures.c.item_id == failure.item_id,
            ]
            again = {"error_type": failure.error_type, "error": failure.error, "tries": _failures.c.tries + 1}
            if self._connection.execute(update(_failures).where(*key).values(again)).rowcount == 0:
                self._connection.execute(insert(_failures), failure.model_dump())

    def clear_failures(self, batch_id: BatchId, collection_id: CollectionId, item_ids: Sequence[str]) -> None:
        for chunk in chunks(item_ids):
            where = [_failures.c.batch_id == batch_id, _failures.c.collection_id == collection_id, _failures.c.item_id.in_(chunk)]
            self._connection.execute(delete(_failures).where(*where))

    def failures(
        self, batch_id: BatchId, *, collection_ids: Sequence[str] | None = None, limit: int = 100, offset: int = 0
    ) -> tuple[list[Failure], int]:
        """One page of them, and how many there are; only those in some collections when they are named."""
        query = select(_failures).where(_failures.c.batch_id == batch_id)
        if collection_ids is not None:
            query = query.where(_failures.c.collection_id.in_(collection_ids))
        rows, total = page(
            self._connection, query, order=[_failures.c.collection_id, _failures.c.item_id], limit=limit, offset=offset
        )
        return [Failure(**row._mapping) for row in rows], total

    def failure_types(self, batch_id: BatchId) -> dict[str, int]:
        """How often each type of error was recorded."""
        query = select(_failures.c.error_type, func.count()).where(_failures.c.batch_id == batch_id)
        return {row[0]: row[1] for row in self._connection.execute(query.group_by(_failures.c.error_type))}

    def failures_of_part(self, batch_id: BatchId, part: int) -> list[Failure]:
        query = select(_failures).where(_failures.c.batch_id == batch_id, _failures.c.part == part)
        return [Failure(**row._mapping) for row in self._connection.execute(query)]

    def failed_items(self, batch_id: BatchId) -> int:
        """How many different items failed in some collection."""
        query = select(func.count(func.distinct(func.coalesce(_failures.c.object_id, _failures.c.item_id))))
        return self._connection.execute(query.where(_failures.c.batch_id == batch_id)).scalar_one()


def _changed_meanwhile(batch_id: BatchId) -> WrongState:
    return WrongState(f"Batch {batch_id} was changed by another request at the same time; read it again.")


def _is(part: BatchPart) -> list[Any]:
    return [_parts.c.batch_id == part.batch_id, _parts.c.part == part.part, _parts.c.attempt == part.attempt]


def _batch(row: Row[Any]) -> Batch:
    return Batch(**{name: value for name, value in row._mapping.items() if value is not None or name != "dag_tiers"})


def _part(row: Row[Any]) -> BatchPart:
    return BatchPart(**{name: row._mapping[name] for name in BatchPart.model_fields})
