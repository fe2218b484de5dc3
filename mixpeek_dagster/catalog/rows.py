"""From rows to values and back, and the lookups that nouns share: by id or name, by many ids, and one page of a list."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import Column, ColumnElement, Connection, Row, Select, Table, Update, func, or_, select
from sqlalchemy.exc import IntegrityError

from mixpeek_dagster.errors import AlreadyExists

T = TypeVar("T")


def find(
    connection: Connection, table: Table, identifier: str, *, id: str, name: str | None = None, **scope: str
) -> Row[Any] | None:
    """The row whose id, or else whose name, is `identifier`, inside the scope (column name → value)."""
    where: list[ColumnElement[bool]] = [table.c[column] == value for column, value in scope.items()]
    match: ColumnElement[bool] = table.c[id] == identifier
    if name is not None:
        match = or_(match, table.c[name] == identifier)
    rows = connection.execute(select(table).where(match, *where)).all()
    by_id = [row for row in rows if row._mapping[id] == identifier]
    found = by_id or rows
    return found[0] if found else None


def hold(connection: Connection, column: Column[Any], id: str) -> None:
    """Keep other transactions from changing a row until this one ends; who wants to hold it too waits, and then reads what is
    written here. SQLite lets one writer in at a time anyway.
    """
    # Not a stronger lock: rows that refer to this one may still be added.
    connection.execute(select(column).where(column == id).with_for_update(key_share=True))


def insert_unique(connection: Connection, table: Table, values: Mapping[str, Any], *, taken: str) -> None:
    """Insert one row.

    Raises:
        AlreadyExists: with the message `taken`, when a unique column holds the value already.
    """
    try:
        with connection.begin_nested():
            connection.execute(table.insert(), values)
    except IntegrityError as error:
        if "unique" in str(error.orig).lower():
            raise AlreadyExists(taken) from error
        raise


def update_unique(connection: Connection, statement: Update, *, taken: str) -> None:
    """Run an update.

    Raises:
        AlreadyExists: with the message `taken`, when it would repeat a value of a unique column.
    """
    try:
        with connection.begin_nested():
            connection.execute(statement)
    except IntegrityError as error:
        if "unique" in str(error.orig).lower():
            raise AlreadyExists(taken) from error
        raise


def page(
    connection: Connection, query: Select[Any], *, order: Sequence[Column[Any] | ColumnElement[Any]], limit: int, offset: int
) -> tuple[Sequence[Row[Any]], int]:
    """One page of a query and the number of rows in all."""
    total = connection.execute(select(func.count()).select_from(query.order_by(None).subquery())).scalar_one()
    if limit == 0:
        return [], total
    return connection.execute(query.order_by(*order).limit(limit).offset(offset)).all(), total


LONGEST_INDEXED = 2500
"""Bytes of a value that an index of either database takes; one of Postgres takes little more."""


def chunks(items: Sequence[T], size: int = 500) -> Sequence[Sequence[T]]:
    """The items in slices of `size`: SQLite and Postgres both limit the parameters of one statement."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def rows_named(connection: Connection, key: Column[Any], values: Iterable[str]) -> Iterator[Row[Any]]:
    """The rows of a table whose key is one of these, in no order; any number of them may be asked for."""
    return rows_among(connection, select(key.table), key, values)


def rows_among(connection: Connection, query: Select[Any], column: Column[Any], values: Iterable[Any]) -> Iterator[Row[Any]]:
    """The rows of a query in which a column is one of these, in no order; any number of them may be asked for. What a query groups by
    has to be that column."""
    for chunk in chunks(list(values)):
        yield from connection.execute(query.where(column.in_(chunk)))
