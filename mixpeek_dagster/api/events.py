"""`/v1/events`: what happened, in order, to be read from where a client stopped."""

from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel

from mixpeek_dagster.api.deps import InNamespace, Opened
from mixpeek_dagster.api.paging import Asked, read_cursor, write_cursor
from mixpeek_dagster.api.routes import new_router
from mixpeek_dagster.catalog.events import Place
from mixpeek_dagster.errors import BadRequest

router = new_router("events")
_OPERATIONS = {"created": "insert", "updated": "update", "deleted": "delete", "written": "insert"}


class EventAnswer(BaseModel):
    """One event; `cursor` continues behind it."""

    seq: int
    cursor: str
    event_id: str
    namespace_id: str | None
    event_type: str
    resource_type: str
    resource_id: str
    operation: str
    payload: dict[str, Any]
    trace_id: str | None = None
    created_at: str


class EventList(BaseModel):
    """Events in the order they happened."""

    results: list[EventAnswer]
    next_cursor: str | None
    has_more: bool


@router.get("/events")
def list_events(
    warehouse: Opened,
    namespace: InNamespace,
    asked: Asked,
    event_type: Annotated[str | None, Query(max_length=100)] = None,
    resource_type: Annotated[str | None, Query(max_length=100)] = None,
) -> EventList:
    """The change feed of the namespace, 90 days of it. `next_cursor` is also given at the end, to ask again later."""
    limit = asked.limit or asked.page_size or 100
    cursor = asked.cursor or asked.next_cursor or asked.after
    said = read_cursor(cursor) if cursor else {}
    place = Place(said.get("t", 0), said.get("s", 0))
    if any(not isinstance(one, int) or isinstance(one, bool) or not 0 <= one < 2**63 for one in place):
        raise BadRequest("The cursor is malformed: pass `next_cursor` back as it came.")
    with warehouse.catalog.reading() as records:
        rows = records.events.after(
            place, namespace_id=namespace.namespace_id, event_type=event_type, resource_type=resource_type, limit=limit + 1
        )
    results = [
        EventAnswer(
            seq=row.seq,
            cursor=write_cursor({"t": row.tx, "s": row.seq}),
            event_id=row.event_id,
            namespace_id=row.namespace_id,
            event_type=row.event_type,
            resource_type=row.resource_type,
            resource_id=row.resource_id,
            operation=_OPERATIONS.get(row.event_type.split(".")[1], "other"),
            payload=row.payload,
            created_at=row.created_at,
        )
        for row in rows[:limit]
    ]
    last = results[-1].cursor if results else cursor
    return EventList(results=results, next_cursor=last, has_more=len(rows) > limit)
