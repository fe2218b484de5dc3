"""The outbox: events recorded in the same transaction as what they tell, delivered afterwards, at least once."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Connection, Row, Text, cast, delete, func, insert, select, tuple_, update

from mixpeek_dagster.catalog import tables
from mixpeek_dagster.catalog.rows import chunks
from mixpeek_dagster.catalog.webhook_tables import webhooks
from mixpeek_dagster.models.ids import NamespaceId, derived_id, new_id

_table = tables.events


class Place(NamedTuple):
    """Where a reader of the feed is: behind the event `seq` of transaction `tx`."""

    tx: int = 0
    seq: int = 0


class EventRecords:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(
        self,
        event_type: str,
        *,
        namespace_id: NamespaceId | None,
        resource: tuple[str, str],
        payload: dict[str, Any],
        now: str,
        once: bool = False,
    ) -> None:
        """Record an event about `resource` (type, id). With `once`, the same event about it gets the same id and is kept once."""
        event_id = derived_id("evt", event_type, *resource) if once else new_id("evt")
        if once and self._connection.execute(select(_table.c.seq).where(_table.c.event_id == event_id)).first():
            return
        row = {
            "event_id": event_id,
            "namespace_id": namespace_id,
            "event_type": event_type,
            "resource_type": resource[0],
            "resource_id": resource[1],
            "payload": payload,
            "created_at": now,
        }
        self._connection.execute(self._insert(), row)

    def add_many(
        self,
        event_type: str,
        resource_type: str,
        told: Sequence[tuple[str, dict[str, Any]]],
        *,
        namespace_id: NamespaceId,
        now: str,
    ) -> None:
        """Record one event each about many resources of a namespace, as (id, payload), in one statement.

        Where no webhook is active they count as delivered: a first pass over a million files is no work for the sensor of webhooks.
        """
        if not told:
            return
        heard = self._connection.execute(select(webhooks.c.webhook_id).where(webhooks.c.is_active).limit(1)).first() is not None
        common: dict[str, Any] = {"namespace_id": namespace_id, "event_type": event_type, "resource_type": resource_type}
        common |= {"created_at": now, "delivered_at": None if heard else now}
        rows = [{**common, "event_id": new_id("evt"), "resource_id": one, "payload": payload} for one, payload in told]
        self._connection.execute(self._insert(), rows)

    def _insert(self) -> Any:
        return insert(_table).values(tx=_current_tx()) if self._is_concurrent else insert(_table)

    @property
    def _is_concurrent(self) -> bool:
        """Whether transactions write at the same time, so that `seq` is not the order of their commits."""
        return self._connection.dialect.name == "postgresql"

    def after(
        self,
        place: Place,
        *,
        namespace_id: NamespaceId,
        event_type: str | None = None,
        resource_type: str | None = None,
        limit: int,
    ) -> list[Row[Any]]:
        """Events of a namespace behind a place, in an order that nothing is ever inserted into.

        On Postgres an event is seen when every transaction that began to write before its own has ended: one that is still open
        may hold events with lower numbers, and they would come too late for a reader who had passed them.
        """
        query = select(_table).where(_table.c.namespace_id == namespace_id, tuple_(_table.c.tx, _table.c.seq) > place)
        if self._is_concurrent:
            query = query.where(_table.c.tx < _as_number(func.pg_snapshot_xmin(func.pg_current_snapshot())))
        if event_type is not None:
            query = query.where(_table.c.event_type == event_type)
        if resource_type is not None:
            query = query.where(_table.c.resource_type == resource_type)
        return list(self._connection.execute(query.order_by(_table.c.tx, _table.c.seq).limit(limit)))

    def has_undelivered(self) -> bool:
        query = select(_table.c.seq).where(_table.c.delivered_at.is_(None)).order_by(_table.c.seq).limit(1)
        return self._connection.execute(query).first() is not None

    def undelivered(self, *, limit: int = 500) -> list[Row[Any]]:
        """The oldest events nobody has been told of, but for those that another transaction is telling right now."""
        query = select(_table).where(_table.c.delivered_at.is_(None)).order_by(_table.c.seq).limit(limit)
        return list(self._connection.execute(query.with_for_update(skip_locked=True)))

    def delivered(self, seqs: list[int], *, now: str) -> None:
        for chunk in chunks(seqs):
            self._connection.execute(update(_table).where(_table.c.seq.in_(chunk)).values(delivered_at=now))

    def prune(self, *, before: str, limit: int) -> int:
        """Delete the oldest events, at most `limit`, that were delivered and are from before a time; how many."""
        oldest = select(_table.c.seq, _table.c.created_at, _table.c.delivered_at).order_by(_table.c.seq).limit(limit)
        rows = self._connection.execute(oldest).all()
        old = [row.seq for row in rows if row.created_at < before and row.delivered_at is not None]
        for chunk in chunks(old):
            self._connection.execute(delete(_table).where(_table.c.seq.in_(chunk)))
        return len(old)


def _current_tx() -> Any:
    return _as_number(func.pg_current_xact_id())


def _as_number(xid8: Any) -> Any:
    return cast(cast(xid8, Text), BigInteger)
