"""What lists of records in SQL share: filter, search, order and page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from sqlalchemy import ColumnElement

from mixpeek_dagster.catalog.operands import Dialect
from mixpeek_dagster.catalog.queries import compile_filter, field_of
from mixpeek_dagster.models.filters import Filter


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Which records, in which order. `sort` holds (field, descending); `after` is where the page before ended."""

    filter: Filter = field(default_factory=Filter)
    search: str | None = None
    sort: Sequence[tuple[str, bool]] = ()
    limit: int = 100
    offset: int = 0
    after: tuple[str, str] | None = None


def predicate(
    filter: Filter, *, columns: Mapping[str, ColumnElement[Any]], payload: ColumnElement[Any], dialect: str
) -> ColumnElement[bool]:
    """A filter as SQL."""
    return compile_filter(filter, columns=columns, payload=payload, dialect=cast(Dialect, dialect))


def ordering(
    sort: Sequence[tuple[str, bool]], *, columns: Mapping[str, ColumnElement[Any]], payload: ColumnElement[Any], dialect: str
) -> list[ColumnElement[Any]]:
    """Sort keys as SQL: numbers by size, texts ignoring case, what is missing last."""
    keys: list[ColumnElement[Any]] = []
    for name, descending in sort:
        if name in columns:
            expressions = [columns[name]]
        else:
            operand = field_of(name, columns=columns, payload=payload, dialect=cast(Dialect, dialect)).operand()
            expressions = [operand.folded] if dialect == "sqlite" else [operand.number, operand.folded]
        keys += [(one.desc() if descending else one.asc()).nulls_last() for one in expressions]
    return keys
