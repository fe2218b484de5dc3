"""Records of collections."""

from typing import Any

from sqlalchemy import Connection, Row, delete, func, select, update

from mixpeek_dagster.catalog import tables
from mixpeek_dagster.catalog.rows import find, hold, insert_unique, page, update_unique
from mixpeek_dagster.errors import NotFound
from mixpeek_dagster.models.collections import Collection
from mixpeek_dagster.models.ids import CollectionId, NamespaceId

_table = tables.collections


class CollectionRecords:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, collection: Collection) -> None:
        taken = f"Collection name {collection.collection_name!r} is taken in this namespace; choose another."
        insert_unique(self._connection, _table, _row(collection), taken=taken)

    def hold(self, collection_id: CollectionId) -> None:
        """Keep other transactions from changing it until this one ends."""
        hold(self._connection, _table.c.collection_id, collection_id)

    def get(self, identifier: str, *, namespace_id: NamespaceId) -> Collection:
        """By id or name inside a namespace.

        Raises:
            NotFound: there is none.
        """
        row = find(self._connection, _table, identifier, id="collection_id", name="collection_name", namespace_id=namespace_id)
        if row is None:
            raise NotFound(f"No collection {identifier!r} in namespace {namespace_id}.")
        return _value(row)

    def all(self, namespace_id: NamespaceId | None = None) -> list[Collection]:
        query = select(_table).order_by(_table.c.created_at, _table.c.collection_id)
        if namespace_id is not None:
            query = query.where(_table.c.namespace_id == namespace_id)
        return [_value(row) for row in self._connection.execute(query)]

    def page(
        self, namespace_id: NamespaceId, *, search: str | None = None, limit: int, offset: int
    ) -> tuple[list[Collection], int]:
        query = select(_table).where(_table.c.namespace_id == namespace_id)
        if search:
            query = query.where(func.lower(_table.c.collection_name).contains(search.lower(), autoescape=True))
        rows, total = page(
            self._connection, query, order=[_table.c.created_at, _table.c.collection_id], limit=limit, offset=offset
        )
        return [_value(row) for row in rows], total

    def put(self, collection: Collection) -> None:
        """Replace what a user may change; the document count is left to the documents.

        Raises:
            AlreadyExists: another collection of the namespace has the name.
        """
        values = {key: value for key, value in _row(collection).items() if key != "document_count"}
        changed = update(_table).where(_table.c.collection_id == collection.collection_id).values(values)
        taken = f"Collection name {collection.collection_name!r} is taken in this namespace; choose another."
        update_unique(self._connection, changed, taken=taken)

    def remove(self, collection_id: CollectionId) -> None:
        self._connection.execute(delete(_table).where(_table.c.collection_id == collection_id))


def _row(collection: Collection) -> dict[str, Any]:
    own = {"collection_id", "namespace_id", "collection_name", "document_count", "created_at", "updated_at"}
    body = collection.model_dump(mode="json", exclude=own, exclude_none=True)
    return {**collection.model_dump(include=own), "body": body}


def _value(row: Row[Any]) -> Collection:
    fields = dict(row._mapping)
    fields.pop("last_seq")
    fields.pop("removals")
    return Collection(**fields.pop("body"), **fields)
