"""The payload indexes that namespaces declare, as indexes of the database.

Each is a partial index of one namespace's documents on (collection, expression of the field): the very expression that filters compare
(`queries.index_expressions`). Its name says what it is, so that making them twice makes them once.

SQLite's planner is told how many documents a value finds by the declared type, not by counting: plans stay the same while a
collection grows. As an index scan of a whole collection none of them pays: its rows lie anywhere. SQLite does not take a partial
index for the two ranges of a lone `lt` or `lte` (the values, the arrays): those read the collection.
"""

import hashlib
from collections.abc import Iterable

from sqlalchemy import Connection, inspect, text

from mixpeek_dagster.catalog import tables
from mixpeek_dagster.catalog.operands import Dialect, quoted, written
from mixpeek_dagster.catalog.queries import index_expressions
from mixpeek_dagster.models.namespaces import PayloadIndex

_FOUND = {"uuid": 2, "datetime": 50, "float": 100, "integer": 100, "keyword": 1_000, "bool": 100_000}
_VERSION = "1"  # part of the names: another form of the expressions makes new indexes


def ensure_payload_indexes(connection: Connection, namespace_id: str, declared: Iterable[PayloadIndex]) -> None:
    """Create the indexes that are missing and drop those of the namespace that are not declared any more.

    Writers of documents wait while an index is built.

    Raises:
        Invalid: the name of a field is no path.
    """
    prefix = f"payload_{_digest(namespace_id)}_"
    wanted: dict[str, tuple[str, int]] = {}
    for one in declared:
        for place, expression in enumerate(_expressions(connection, one)):
            name = prefix + _digest(_VERSION, one.field_name, one.type, str(place))
            wanted[name] = expression, _FOUND[one.type]
    there = {name for name in _names(connection) if name.startswith(prefix)}
    for name in there - wanted.keys():
        connection.execute(text(f"DROP INDEX {name}"))
    for name in wanted.keys() - there:
        expression, found = wanted[name]
        _run(connection, f"CREATE INDEX {name} ON documents (collection_id, ({expression})) WHERE {_of(namespace_id)}")
        if connection.dialect.name == "sqlite":
            stat = {"name": name, "stat": f"1000000 150000 {found}"}
            connection.execute(text("INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES ('documents', :name, :stat)"), stat)
    if connection.dialect.name == "sqlite" and there != wanted.keys():
        connection.execute(text("ANALYZE sqlite_schema"))  # reads what was written; other connections do when the schema changed


def _expressions(connection: Connection, one: PayloadIndex) -> list[str]:
    """As a statement holds them: columns without their table, no parameters."""
    dialect: Dialect = "sqlite" if connection.dialect.name == "sqlite" else "postgresql"
    own = tables.documents.c.payload
    return [str(written(sql, dialect)) for sql in index_expressions(one.field_name, one.type, payload=own, dialect=dialect)]


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
