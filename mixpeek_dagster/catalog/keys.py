"""Records of API keys."""

from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from mixpeek_dagster.catalog import request_tables
from mixpeek_dagster.errors import NotFound
from mixpeek_dagster.models.keys import ApiKey

_table = request_tables.api_keys


class KeyRecords:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, key: ApiKey, *, key_hash: str) -> None:
        self._connection.execute(insert(_table), key.model_dump() | {"key_hash": key_hash})

    def valid(self, key_hash: str) -> ApiKey | None:
        """The key with this hash, unless it was revoked."""
        query = select(_table).where(_table.c.key_hash == key_hash, _table.c.revoked_at.is_(None))
        row = self._connection.execute(query).first()
        return None if row is None else _value(row)

    def all(self) -> list[ApiKey]:
        return [_value(row) for row in self._connection.execute(select(_table).order_by(_table.c.created_at, _table.c.key_id))]

    def count(self) -> int:
        """How many keys there ever were, the revoked ones included."""
        return self._connection.execute(select(func.count()).select_from(_table)).scalar_one()

    def revoke(self, key_id: str, *, now: str) -> ApiKey:
        """From now on the key is not valid; revoking it again changes nothing.

        Raises:
            NotFound: there is no such key.
        """
        known = _table.c.key_id == key_id
        self._connection.execute(update(_table).where(known, _table.c.revoked_at.is_(None)).values(revoked_at=now))
        row = self._connection.execute(select(_table).where(known)).first()
        if row is None:
            raise NotFound(f"No API key {key_id!r}; `mixpeek-dagster keys list` shows them.")
        return _value(row)


def _value(row: Row[Any]) -> ApiKey:
    return ApiKey(**{name: row._mapping[name] for name in ApiKey.model_fields})
