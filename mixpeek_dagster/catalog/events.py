"""The outbox: events recorded in the same transaction as what they tell, delivered afterwards, at least once."""

from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from mixpeek_dagster.catalog import tables
from mixpeek_dagster.models.ids import NamespaceId, derived_id, new_id

_table = tables.events


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
        self._connection.execute(insert(_table), row)

    def after(
        self, seq: int, *, namespace_id: NamespaceId, event_type: str | None = None, resource_type: str | None = None, limit: int
    ) -> list[Row[Any]]:
        """Events of a namespace behind a sequence number, in order."""
        query = select(_table).where(_table.c.seq > seq, _table.c.namespace_id == namespace_id)
        if event_type is not None:
            query = query.where(_table.c.event_type == event_type)
        if resource_type is not None:
            query = query.where(_table.c.resource_type == resource_type)
        return list(self._connection.execute(query.order_by(_table.c.seq).limit(limit)))

    def has_undelivered(self) -> bool:
        query = select(_table.c.seq).where(_table.c.delivered_at.is_(None)).order_by(_table.c.seq).limit(1)
        return self._connection.execute(query).first() is not None

    def undelivered(self, *, limit: int = 500) -> list[Row[Any]]:
        """The oldest events nobody has been told of, but for those that another transaction is telling right now."""
        query = select(_table).where(_table.c.delivered_at.is_(None)).order_by(_table.c.seq).limit(limit)
        return list(self._connection.execute(query.with_for_update(skip_locked=True)))

    def delivered(self, seqs: list[int], *, now: str) -> None:
        if seqs:
            self._connection.execute(update(_table).where(_table.c.seq.in_(seqs)).values(delivered_at=now))
