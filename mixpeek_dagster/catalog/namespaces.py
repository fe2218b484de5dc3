"""Records of namespaces."""

from typing import Any

from sqlalchemy import Connection, Row, delete, func, select, update

from mixpeek_dagster.catalog import tables
from mixpeek_dagster.catalog.payload_indexes import ensure_payload_indexes
from mixpeek_dagster.catalog.rows import find, hold, insert_unique, page, update_unique
from mixpeek_dagster.errors import NotFound
from mixpeek_dagster.models.ids import NamespaceId
from mixpeek_dagster.models.namespaces import Namespace

_table = tables.namespaces


class NamespaceRecords:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, namespace: Namespace) -> None:
        insert_unique(self._connection, _table, _row(namespace), taken=_taken(namespace))
        if namespace.payload_indexes:
            ensure_payload_indexes(self._connection, namespace.namespace_id, namespace.payload_indexes)

    def hold(self, namespace_id: NamespaceId) -> None:
        """Keep other transactions from changing it until this one ends."""
        hold(self._connection, _table.c.namespace_id, namespace_id)

    def get(self, identifier: str) -> Namespace:
        """By id or name.

        Raises:
            NotFound: there is none.
        """
        row = find(self._connection, _table, identifier, id="namespace_id", name="namespace_name")
        if row is None:
            raise NotFound(f"No namespace {identifier!r}.")
        return _value(row)

    def all(self) -> list[Namespace]:
        query = select(_table).order_by(_table.c.created_at, _table.c.namespace_id)
        return [_value(row) for row in self._connection.execute(query)]

    def page(self, *, search: str | None = None, limit: int, offset: int) -> tuple[list[Namespace], int]:
        query = select(_table)
        if search:
            query = query.where(func.lower(_table.c.namespace_name).contains(search.lower(), autoescape=True))
        rows, total = page(
            self._connection, query, order=[_table.c.created_at, _table.c.namespace_id], limit=limit, offset=offset
        )
        return [_value(row) for row in rows], total

    def put(self, namespace: Namespace) -> None:
        """Replace what a user may change. Raises AlreadyExists for a name that another namespace has."""
        changed = update(_table).where(_table.c.namespace_id == namespace.namespace_id).values(_row(namespace))
        before = self.get(namespace.namespace_id).payload_indexes
        update_unique(self._connection, changed, taken=_taken(namespace))
        if list(before) != list(namespace.payload_indexes):
            ensure_payload_indexes(self._connection, namespace.namespace_id, namespace.payload_indexes)

    def ensure_indexes(self, namespace: Namespace, *, rebuild: bool) -> None:
        """Make the declared payload indexes that are missing; with `rebuild` all of them anew."""
        if rebuild:
            ensure_payload_indexes(self._connection, namespace.namespace_id, ())
        ensure_payload_indexes(self._connection, namespace.namespace_id, namespace.payload_indexes)

    def counts(self, namespace_id: NamespaceId) -> dict[str, int]:
        """How many buckets, objects, collections and documents the namespace holds, from the running totals."""
        buckets, collections = tables.buckets.c, tables.collections.c
        bucket_count, object_count = self._connection.execute(
            select(func.count(), func.coalesce(func.sum(buckets.object_count), 0)).where(buckets.namespace_id == namespace_id)
        ).one()
        collection_count, document_count = self._connection.execute(
            select(func.count(), func.coalesce(func.sum(collections.document_count), 0)).where(
                collections.namespace_id == namespace_id
            )
        ).one()
        return {
            "bucket_count": bucket_count,
            "object_count": int(object_count),
            "collection_count": collection_count,
            "document_count": int(document_count),
        }

    def remove(self, namespace_id: NamespaceId) -> None:
        self._connection.execute(delete(_table).where(_table.c.namespace_id == namespace_id))
        ensure_payload_indexes(self._connection, namespace_id, ())


def _taken(namespace: Namespace) -> str:
    return f"Namespace name {namespace.namespace_name!r} is taken; choose another, or use the existing namespace."


def _row(namespace: Namespace) -> dict[str, Any]:
    own = {"namespace_id", "namespace_name", "created_at", "updated_at"}
    body = namespace.model_dump(mode="json", exclude=own, exclude_none=True)
    return {**namespace.model_dump(include=own), "body": body}


def _value(row: Row[Any]) -> Namespace:
    fields = dict(row._mapping)
    return Namespace(**fields.pop("body"), **fields)
