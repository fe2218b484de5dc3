"""Records of connections: how a provider is reached, with its secrets as ciphertext."""

from typing import Any

from sqlalchemy import Connection as Database
from sqlalchemy import Row, and_, delete, select, update

from mixpeek_dagster.catalog import tables
from mixpeek_dagster.catalog.rows import find, insert_unique, update_unique
from mixpeek_dagster.errors import NotFound
from mixpeek_dagster.models.ids import ConnectionId
from mixpeek_dagster.models.syncs import Connection

_connections = tables.connections


class ConnectionRecords:
    """Part of `SyncRecords`: read as `records.syncs.connection(…)`."""

    def __init__(self, connection: Database) -> None:
        self._connection = connection

    def add_connection(self, connection: Connection, *, body: dict[str, Any], secrets: str | None) -> None:
        """`body` is the config without its secrets, `secrets` their ciphertext."""
        row = connection.model_dump(exclude={"config"}) | {"body": body, "secrets": secrets}
        taken = f"Connection name {connection.name!r} is taken; choose another."
        insert_unique(self._connection, _connections, row, taken=taken)

    def connection(self, identifier: str) -> tuple[Connection, str | None]:
        """By id or name, with the ciphertext of its secrets.

        Raises:
            NotFound: there is none.
        """
        row = find(self._connection, _connections, identifier, id="connection_id", name="name")
        if row is None:
            raise NotFound(f"No connection {identifier!r}.")
        return _connection(row), row.secrets

    def connections(self) -> list[Connection]:
        """Every connection that somebody named, oldest first; those given inline with a sync belong to it."""
        return [one for one in self.all_connections() if one.name != one.connection_id]

    def all_connections(self) -> list[Connection]:
        """Every connection, oldest first."""
        query = select(_connections).order_by(_connections.c.created_at, _connections.c.connection_id)
        return [_connection(row) for row in self._connection.execute(query)]

    def put_connection(self, connection: Connection, *, body: dict[str, Any], secrets: str | None) -> None:
        """Replace a connection. Raises AlreadyExists for a taken name."""
        row = connection.model_dump(exclude={"config", "created_at"}) | {"body": body, "secrets": secrets}
        changed = update(_connections).where(_connections.c.connection_id == connection.connection_id).values(row)
        update_unique(self._connection, changed, taken=f"Connection name {connection.name!r} is taken; choose another.")

    def swap_secrets(self, connection_id: ConnectionId, *, old: str | None, new: str, now: str) -> bool:
        """Replace a connection's secrets, if they are still `old`."""
        same = _connections.c.secrets.is_(None) if old is None else _connections.c.secrets == old
        changed = update(_connections).where(_connections.c.connection_id == connection_id, same)
        return self._connection.execute(changed.values(secrets=new, updated_at=now)).rowcount == 1

    def remove_connection(self, connection_id: ConnectionId) -> None:
        self._connection.execute(delete(_connections).where(_connections.c.connection_id == connection_id))

    def remove_unnamed_connection(self, connection_id: str) -> None:
        """Delete a connection that was given inline with a sync, and so has no name of its own, once no sync uses it."""
        used = select(tables.syncs.c.sync_id).where(tables.syncs.c.connection_id == connection_id).exists()
        unnamed = and_(_connections.c.connection_id == connection_id, _connections.c.name == connection_id)
        self._connection.execute(delete(_connections).where(unnamed, ~used))


def _connection(row: Row[Any]) -> Connection:
    fields = dict(row._mapping)
    fields.pop("secrets")
    return Connection(config=fields.pop("body"), **fields)
