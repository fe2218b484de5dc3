"""Records of retrievers."""

from typing import Any

from sqlalchemy import Connection, Row, delete, select, update

from mixpeek_dagster.catalog.request_tables import retrievers as _table
from mixpeek_dagster.catalog.rows import find, hold, insert_unique, update_unique
from mixpeek_dagster.errors import NotFound
from mixpeek_dagster.models.ids import NamespaceId
from mixpeek_dagster.models.retrievers import Retriever

_OWN = {"retriever_id", "namespace_id", "retriever_name", "created_at", "updated_at"}


class RetrieverRecords:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, retriever: Retriever) -> None:
        """Raises AlreadyExists for a taken name."""
        insert_unique(self._connection, _table, _row(retriever), taken=_taken(retriever))

    def put(self, retriever: Retriever) -> None:
        """Raises AlreadyExists for a name that another retriever has."""
        changed = update(_table).where(_table.c.retriever_id == retriever.retriever_id).values(_row(retriever))
        update_unique(self._connection, changed, taken=_taken(retriever))

    def hold(self, retriever_id: str) -> None:
        """Keep other transactions from changing it until this one ends."""
        hold(self._connection, _table.c.retriever_id, retriever_id)

    def get(self, identifier: str, *, namespace_id: NamespaceId) -> Retriever:
        """By id or name inside a namespace.

        Raises:
            NotFound: there is none.
        """
        row = find(self._connection, _table, identifier, id="retriever_id", name="retriever_name", namespace_id=namespace_id)
        if row is None:
            raise NotFound(f"No retriever {identifier!r} in namespace {namespace_id}.")
        return _value(row)

    def all(self, namespace_id: NamespaceId) -> list[Retriever]:
        query = select(_table).where(_table.c.namespace_id == namespace_id)
        return [_value(row) for row in self._connection.execute(query.order_by(_table.c.created_at, _table.c.retriever_id))]

    def remove(self, retriever_id: str) -> None:
        self._connection.execute(delete(_table).where(_table.c.retriever_id == retriever_id))


def _row(retriever: Retriever) -> dict[str, Any]:
    return {**retriever.model_dump(include=_OWN), "body": retriever.model_dump(mode="json", exclude=_OWN, exclude_none=True)}


def _value(row: Row[Any]) -> Retriever:
    fields = dict(row._mapping)
    return Retriever(**fields.pop("body"), **fields)


def _taken(retriever: Retriever) -> str:
    return f"Retriever name {retriever.retriever_name!r} is taken in this namespace; choose another."
