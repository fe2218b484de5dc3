"""Groups, distinct values and simple aggregates of a field.

A document belongs to the group of its value (`comparison.value_at`): 1 and 1.0 are one group, an array is one value, null and
missing are the group null. Distinct values are counted per candidate of a filter, so of arrays per element. Keys and values are
JSON; `canonical` gives both databases the same numbers (Postgres may say 1.0 where SQLite says 1).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    JSON,
    Boolean,
    ColumnElement,
    FromClause,
    Integer,
    Select,
    Text,
    case,
    cast,
    collate,
    column,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import JSONB

from mixpeek_dagster.catalog import postgres, sqlite
from mixpeek_dagster.catalog.functions import canonical, canonical_text
from mixpeek_dagster.catalog.operands import ColumnField, Dialect, Sql, quoted
from mixpeek_dagster.catalog.queries import field_of
from mixpeek_dagster.errors import Invalid

AGGREGATES: Final = frozenset({"count", "count_distinct", "sum", "avg", "min", "max"})


def group_expression(field: str, *, columns: Mapping[str, Sql], payload: Sql, dialect: Dialect) -> Sql:
    """What to GROUP BY, and to select as the key of the group; None for null and missing. Raises `Invalid` when the field is no
    path.
    """
    found = field_of(field, columns=columns, payload=payload, dialect=dialect)
    if isinstance(found, sqlite.SqliteField):
        return type_coerce(sqlite.group_key(payload, field, found.at()), JSON(none_as_null=True))
    if isinstance(found, postgres.PostgresField):
        return type_coerce(postgres.group_key(found), JSONB(none_as_null=True))
    assert isinstance(found, ColumnField)
    return found.column


def spelled(key: Sql) -> Sql:
    """The key of a group as a scalar: JSON as its text. Postgres may spell equal numbers of two documents differently."""
    if isinstance(key.type, JSONB):
        return cast(key, Text)
    return type_coerce(key, Text) if isinstance(key.type, JSON) else key


def group_value(key: Sql, spelling: Any) -> Any:
    """The value that `spelled` spelled."""
    return canonical(json.loads(spelling)) if isinstance(key.type, JSON) and spelling is not None else spelling


def is_one_of(key: Sql, spellings: Sequence[Any]) -> ColumnElement[bool]:
    """The key is one of these."""
    given = [one for one in spellings if one is not None]
    values = [cast(literal(one), JSONB) if isinstance(key.type, JSONB) else literal(one) for one in given]
    found = (key if isinstance(key.type, JSONB) else spelled(key)).in_(values)
    return found if len(given) == len(spellings) else or_(found, key.is_(None))


class SameGroup(dict[Any, Any]):
    """Any spelling of a key → the one that its group is known by."""

    def __init__(self, key: Sql, groups: Iterable[Any]) -> None:
        super().__init__((one, one) for one in groups)
        self._key = key
        self._known = {canonical_text(group_value(key, one)): one for one in self}

    def __missing__(self, spelling: Any) -> Any:
        self[spelling] = self._known[canonical_text(group_value(self._key, spelling))]
        return self[spelling]


def distinct_values(
    field: str,
    *,
    source: FromClause,
    where: ColumnElement[bool],
    columns: Mapping[str, Sql],
    payload: Sql,
    dialect: Dialect,
    limit: int,
) -> Select[Any]:
    """(value, how often) of a field in the rows of `source` that pass `where`, most frequent first; null and missing are left
    out.
    """
    found = field_of(field, columns=columns, payload=payload, dialect=dialect)
    key: Sql
    tie: Sql
    if isinstance(found, sqlite.SqliteField):
        each = func.json_each(func.mixpeek_candidates(payload, quoted(field))).table_valued("value")
        source, key, tie = source.join(each, true()), type_coerce(each.c.value, JSON(none_as_null=True)), each.c.value
        given = each.c.value != literal_column("'null'")
    elif isinstance(found, postgres.PostgresField):
        each = found.reach("[*]").table_valued(column("v", JSONB)).render_derived()
        source, key, tie = source.join(each, true()), type_coerce(each.c.v, JSONB), collate(cast(each.c.v, Text), "C")
        given = func.jsonb_typeof(each.c.v) != literal_column("'null'")
    else:
        assert isinstance(found, ColumnField)
        key = found.column
        tie = cast(key, Integer) if isinstance(key.type, Boolean) else key
        given = key.is_not(None)
    query = select(key.label("value"), func.count().label("count")).select_from(source).where(where, given)
    return query.group_by(key).order_by(func.count().desc(), func.min(tie)).limit(limit)


def aggregate(function: str, field: str | None = None, *, columns: Mapping[str, Sql], payload: Sql, dialect: Dialect) -> Sql:
    """One aggregate to select. `sum` and `avg` see numbers, `min` and `max` numbers < texts; neither looks into arrays.

    Args:
        field: may be left out for `count`, which then counts rows; else it counts those where the field is not null or missing.

    Raises:
        Invalid: an unknown function, or no field where one is needed.
    """
    if function not in AGGREGATES or (field is None and function != "count"):
        raise Invalid(
            f"no aggregate {function!r}" if field else f"{function} needs a field", details={"known": sorted(AGGREGATES)}
        )
    if field is None:
        return func.count()
    if function in ("count", "count_distinct"):
        key = group_expression(field, columns=columns, payload=payload, dialect=dialect)
        return func.count(key.distinct() if function == "count_distinct" else key)
    found = field_of(field, columns=columns, payload=payload, dialect=dialect)
    operand = found.operand()
    if isinstance(found, ColumnField):
        return _pick(function, found.column)
    number = case((operand.number < operand.numbers_below, operand.number))
    if function in ("sum", "avg"):
        return _pick(function, number)
    if dialect == "sqlite":
        assert operand.texts_within is not None
        return _pick(function, case((operand.text < operand.texts_within[1], operand.text)))
    numbers, texts = (func.to_jsonb(_pick(function, some)) for some in (number, case((operand.is_text, operand.text))))
    return type_coerce(func.coalesce(numbers, texts) if function == "min" else func.coalesce(texts, numbers), JSONB)


def _pick(function: str, value: Sql) -> Sql:
    aggregated: Sql = getattr(func, function)(value)
    return aggregated
