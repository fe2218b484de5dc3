"""The payload indexes that namespaces declare, as indexes of the database.

Each is a partial index of one namespace's documents on (collection, expression of the field): the very expression that filters compare
(`queries.index_expressions`). Its name says what it is, so that making them twice makes them once.
"""

import hashlib
from collections.abc import Iterable

from sqlalchemy import Connection, inspect, text
from sqlalchemy.dialects import postgresql, sqlite

from mixpeek_dagster.catalog import tables
from mixpeek_dagster.catalog.operands import Sql, quoted
from mixpeek_dagster.catalog.queries import index_expressions
from mixpeek_dagster.models.namespaces import PayloadIndex

_VERSION = "1"  # part of the names: another form of the expressions makes new indexes


def ensure_payload_indexes(connection: Connection, namespace_id: str, declared: Iterable[PayloadIndex]) -> None:
    """Create the indexes that are missing and drop those of the namespace that are not declared any more.

    Writers of documents wait while an index is built.

    Raises:
        Invalid: the name of a field is no path.
    """
    prefix = f"payload_{_digest(namespace_id)}_"
    wanted: dict[str, str] = {}
    for one in declared:
        for place, expression in enumerate(_expressions(connection, one)):
            name = prefix + _digest(_VERSION, one.field_name, one.type, str(place))
            wanted[name] = _written(connection, expression)
    there = {name for name in _names(connection) if name.startswith(prefix)}
    for name in there - wanted.keys():
        connection.execute(text(f"DROP INDEX {name}"))
    for name in wanted.keys() - there:
        _run(connection, f"CREATE INDEX {name} ON documents (collection_id, ({wanted[name]})) WHERE {_of(namespace_id)}")


def _expressions(connection: Connection, one: PayloadIndex) -> list[Sql]:
    payload: Sql = tables.documents.c.payload
    dialect = "sqlite" if connection.dialect.name == "sqlite" else "postgresql"
    return index_expressions(one.field_name, one.type, payload=payload, dialect=dialect)  # type: ignore[arg-type]


def _written(connection: Connection, expression: Sql) -> str:
    """The expression as the text that a statement holds: columns without their table, no parameters."""
    dialect = sqlite.dialect() if connection.dialect.name == "sqlite" else postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]
    compiled = expression.compile(dialect=dialect, compile_kwargs={"literal_binds": True, "include_table": False})
    return str(compiled)


def _run(connection: Connection, statement: str) -> None:
    """Execute it as it is: its colons and percent signs are no parameters."""
    cursor = connection.connection.cursor()
    try:
        cursor.execute(statement)
    finally:
        cursor.close()


def _of(namespace_id: str) -> str:
    return f"namespace_id = {quoted(namespace_id)}"


def _names(connection: Connection) -> list[str]:
    if connection.dialect.name == "sqlite":
        rows = connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = 'documents'"))
        return [row[0] for row in rows]
    return [str(one["name"]) for one in inspect(connection).get_indexes("documents")]


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\x1f".join(parts).encode("utf-8", "surrogatepass"), digest_size=9).hexdigest()
