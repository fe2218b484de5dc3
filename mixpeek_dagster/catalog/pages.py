"""Pages in a total order, and the cursors that continue them.

The order is that of `comparison.sort_key`: numbers < texts < false < true < arrays and objects < null and missing, texts by code
point; descending turns it round, but null and missing stay last. Documents with equal values follow each other by their id, in
the same direction. A cursor holds the value and the id of the last document, so documents that come or go elsewhere neither
repeat nor skip any.

Sorting by a column that is not nullable, with the id after it, is one range of an index (column, id). Sorting by a payload field
reads every row of the filter.
"""

import base64
import binascii
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    String,
    UnaryExpression,
    and_,
    case,
    false,
    literal,
    literal_column,
    or_,
    true,
    tuple_,
)
from sqlalchemy.sql.operators import custom_op

from mixpeek_dagster.catalog import postgres, sqlite
from mixpeek_dagster.catalog.operands import ColumnField, Dialect, Operand, Sql, decimal
from mixpeek_dagster.catalog.queries import field_of
from mixpeek_dagster.errors import BadRequest, Invalid
from mixpeek_dagster.models.comparison import Json, sort_key
from mixpeek_dagster.models.values import check_text

_VERSION: Final = 1
_MAX_CURSOR: Final = 100_000


class Cursor(NamedTuple):
    """Where a page ended: the sort value and the id of its last document."""

    value: Json
    document_id: str


@dataclass(frozen=True)
class Order:
    """One sort, made by `order_by`. `clauses` go to ORDER BY as they are; for `is_walked` see `ListingRecords.order`."""

    clauses: tuple[Sql, ...]
    _keys: tuple[Sql, ...]
    _id: Sql
    _descending: bool
    _kind: str
    is_walked: bool | None = None

    def after(self, cursor: Cursor) -> ColumnElement[bool]:
        """The rows that follow the cursor's. Raises `BadRequest` when no row of this order can have its value."""
        rank, *value = sort_key(cursor.value)
        behind_id = _beyond(self._id, cursor.document_id, self._descending)
        if self._kind == "column":
            return self._after_in_column(cursor, behind_id)
        if self._kind == "sqlite":
            (key,) = self._keys
            if rank == 4:
                return and_(key.is_(None), behind_id)
            own: Sql = literal(value[0]) if rank < 2 else literal_column(f"x'0{int(value[0]) if value else 2}'")
            return or_(_beyond(key, own, self._descending), key.is_(None), and_(key == own, behind_id))
        place, number, text = self._keys
        here = _postgres_rank(rank, self._descending)
        same: ColumnElement[bool] = behind_id
        if value:
            key, own = (number, decimal(value[0])) if rank == 0 else (text, literal(_text(rank, value[0])))
            same = or_(_beyond(key, own, self._descending), and_(key == own, behind_id))
        return or_(place > here, and_(place == here, same))

    def _after_in_column(self, cursor: Cursor, behind_id: ColumnElement[bool]) -> ColumnElement[bool]:
        (column,), value = self._keys, cursor.value
        nullable = _is_nullable(column)
        if value is None:
            return and_(column.is_(None), behind_id) if nullable else false()
        if isinstance(value, str) != isinstance(column.type, String) or isinstance(value, bool) != isinstance(
            column.type, Boolean
        ):
            raise _broken("its value is not one of the field it is sorted by")
        own = literal(value)
        if not nullable:
            return _beyond(tuple_(column, self._id), tuple_(own, literal(cursor.document_id)), self._descending)
        return or_(_beyond(column, own, self._descending), column.is_(None), and_(column == own, behind_id))


def order_by(
    field: str,
    *,
    descending: bool,
    columns: Mapping[str, Sql],
    payload: Sql,
    document_id: Sql,
    dialect: Dialect,
    is_walked: bool | None = None,
) -> Order:
    """The order of a dotted field or a known column; see the module for what it is.

    Raises:
        Invalid: the name is no dotted path.
    """

    def by(key: Sql) -> Any:
        key = _unindexed(key) if is_walked is False and dialect == "sqlite" else key
        return key.desc() if descending else key.asc()

    found = field_of(field, columns=columns, payload=payload, dialect=dialect)
    if isinstance(found, ColumnField):
        column = found.column
        nulls = by(column).nulls_last() if _is_nullable(column) else by(column)
        clauses = (by(column),) if column is document_id else (nulls, by(document_id))
        return Order(clauses, (column,), document_id, descending, "column", is_walked)
    operand = found.operand()
    if dialect == "sqlite":
        key = operand.text
        return Order((by(key).nulls_last(), by(document_id)), (key,), document_id, descending, "sqlite", is_walked)
    rank = _rank(operand, descending)
    keys = (rank, operand.number, operand.text)
    return Order((rank, *map(by, (*keys[1:], document_id))), keys, document_id, descending, "postgresql", is_walked)


def _unindexed(key: Sql) -> Sql:
    """The same, as SQLite looks up no index for it."""
    return UnaryExpression(key, operator=custom_op("+"), type_=key.type)


def _rank(operand: Operand, descending: bool) -> Sql:
    """The place of the value's type on Postgres, as a small integer."""

    def place(rank: int) -> Sql:
        return literal_column(str(_postgres_rank(rank, descending)))

    return case(
        (operand.is_text, place(1)),
        (operand.text == postgres.OTHER, place(3)),
        (operand.text.is_not(None), place(2)),
        (operand.number.is_not(None), place(0)),
        else_=place(4),
    )


def _postgres_rank(rank: int, descending: bool) -> int:
    return 3 - rank if descending and rank < 4 else rank


def _text(rank: int, value: Json) -> str:
    return str(value) if rank == 1 else "\x04" if value else "\x03"


def _beyond(key: Sql, value: object, descending: bool) -> ColumnElement[bool]:
    return key < value if descending else key > value


def _is_nullable(column: Sql) -> bool:
    return not isinstance(column, Column) or bool(column.nullable)


def scope_of(*parts: Json) -> str:
    """A digest of what a cursor belongs to: filter, sort, search, collections … Cursors of another scope are refused."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=9).hexdigest()


def encode_cursor(cursor: Cursor, *, scope: str) -> str:
    """The cursor as URL-safe text. Values that are no scalar become a mark of their kind."""
    value = cursor.value if sort_key(cursor.value)[0] != 3 else []
    body = json.dumps([_VERSION, scope, value, cursor.document_id], ensure_ascii=False, separators=(",", ":"))
    return base64.urlsafe_b64encode(body.encode()).rstrip(b"=").decode()


def decode_cursor(token: str, *, scope: str) -> Cursor:
    """The cursor that `encode_cursor` wrote.

    Raises:
        BadRequest: it is none of ours, or belongs to a request with another filter, sort or search.
    """
    if len(token) > _MAX_CURSOR:
        raise _broken("it is too long")
    try:
        raw = base64.b64decode(token.encode("ascii") + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
        version, of, value, document_id = json.loads(raw.decode("utf-8"))
    except (ValueError, TypeError, binascii.Error, RecursionError) as error:
        raise _broken("it is not one of ours") from error
    if version != _VERSION or not isinstance(document_id, str) or not isinstance(value, str | int | float | bool | list | None):
        raise _broken("it is not one of ours")
    if of != scope:
        raise _broken("it belongs to a request with another filter, sort or search")
    try:
        for text in (value, document_id):
            if isinstance(text, str):
                check_text(text)
    except Invalid as error:
        raise _broken("it is not one of ours") from error
    if isinstance(value, float) and not math.isfinite(value):
        raise _broken("it is not one of ours")
    return Cursor(value, document_id)


def _broken(why: str) -> BadRequest:
    return BadRequest(f"The cursor cannot be used: {why}. Start again without a cursor.")


def searched(term: str, *, payload: Sql, dialect: Dialect) -> ColumnElement[bool]:
    """`comparison.search_matches`: some text anywhere in the payload contains the term, ignoring case; keys are not searched."""
    return (sqlite.searched if dialect == "sqlite" else postgres.searched)(term, payload) if term else true()
