"""Aggregate documents or objects: groups by fields, parts of times or ranges, and numbers over each group.

Plain fields with the functions that SQL has are one statement. The rest (times, ranges, `unwind`, lists of values) reads the documents.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field

from mixpeek_dagster.catalog.functions import canonical
from mixpeek_dagster.catalog.groups import AGGREGATES
from mixpeek_dagster.catalog.listing import Scope
from mixpeek_dagster.catalog.lists import Listing
from mixpeek_dagster.catalog.pages import Cursor
from mixpeek_dagster.errors import Invalid
from mixpeek_dagster.models.comparison import candidates, instant_us, is_number, sort_key, value_at
from mixpeek_dagster.models.filters import ORDER, Filter, field_path
from mixpeek_dagster.models.ids import BucketId
from mixpeek_dagster.models.values import Lenient
from mixpeek_dagster.pipeline.answers import flat_record
from mixpeek_dagster.pipeline.warehouse import Warehouse

Name = Annotated[str, Field(min_length=1, max_length=512)]
Unit = Literal["year", "month", "week", "day", "hour", "minute", "second"]
Part = Literal["year", "month", "week", "day", "dayOfWeek", "dayOfYear", "hour", "minute", "second"]
Function = Literal["count", "count_distinct", "sum", "avg", "min", "max", "first", "last", "push", "add_to_set"]
_MOST = 10_000
_CHUNK = 1000
_METADATA = "metadata."


class GroupBy(Lenient):
    """A field to group by, or a part of the time in it."""

    field: Name
    alias: Name | None = None
    date_trunc: Unit | None = None
    date_part: Part | None = None

    @property
    def name(self) -> str:
        return self.alias or self.field


class Operation(Lenient):
    """One number, or list, over each group."""

    function: Function
    field: Name | None = None
    alias: Name
    distinct_field: Name | None = None


class Having(Lenient):
    """Keeps groups whose metric compares so."""

    field: Name
    operator: Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]
    value: Any


class RangeBucket(Lenient):
    """Groups a number by the range it is in; the lower boundary belongs to a range."""

    field: Name
    boundaries: Sequence[float | int | str] = Field(min_length=1, max_length=1000)
    default_bucket: str = "other"


class Aggregation(Lenient):
    """Body of an aggregation."""

    group_by: Sequence[GroupBy] = Field(default=(), max_length=10)
    aggregations: Sequence[Operation] = Field(min_length=1, max_length=50)
    filters: dict[str, Any] | None = None
    having: Sequence[Having] = Field(default=(), max_length=50)
    unwind: Name | None = None
    range_buckets: Sequence[RangeBucket] = Field(default=(), max_length=10)
    sort_by: Name | None = None
    sort_direction: Literal["asc", "desc"] = "desc"
    limit: int | None = Field(default=None, ge=1, le=_MOST)

    @property
    def is_plain(self) -> bool:
        """SQL has it all."""
        if self.unwind or self.range_buckets or any(one.date_trunc or one.date_part for one in self.group_by):
            return False
        return all(one.function in AGGREGATES for one in self.aggregations)


Row = tuple[dict[str, Any], dict[str, Any]]
Measure = tuple[str, str | None]
"""A function, and the field it is of."""


class Rows(Protocol):
    """What is aggregated."""

    def aggregates(self, keys: Sequence[str], measures: Sequence[Measure]) -> Sequence[Sequence[Any]]:
        """One row per group of the key fields, computed by the database: the keys, then every measure."""
        ...

    def records(self) -> Iterator[dict[str, Any]]:
        """Every record, as filters see it; read a page at a time."""
        ...


@dataclass(frozen=True)
class DocumentRows:
    """The documents of a scope."""

    warehouse: Warehouse
    scope: Scope

    def aggregates(self, keys: Sequence[str], measures: Sequence[Measure]) -> Sequence[Sequence[Any]]:
        with self.warehouse.catalog.reading() as records:
            return records.listing.aggregates(self.scope, keys, measures)

    def records(self) -> Iterator[dict[str, Any]]:
        after: Cursor | None = None
        while True:
            with self.warehouse.catalog.reading() as records:
                order = records.listing.order("document_id", descending=False)
                page = records.listing.page(self.scope, order, limit=_CHUNK, after=after)
            yield from (flat_record(document) for document in page)
            if len(page) < _CHUNK:
                return
            after = Cursor(page[-1].document_id, page[-1].document_id)


@dataclass(frozen=True)
class ObjectRows:
    """The objects of a bucket that pass a filter. `metadata.price` and `price` are the same field."""

    warehouse: Warehouse
    bucket_id: BucketId
    filter: Filter

    def aggregates(self, keys: Sequence[str], measures: Sequence[Measure]) -> Sequence[Sequence[Any]]:
        fields = [(function, None if field is None else field.removeprefix(_METADATA)) for function, field in measures]
        with self.warehouse.catalog.reading() as records:
            names = [one.removeprefix(_METADATA) for one in keys]
            return records.objects.aggregates(self.bucket_id, self.filter, names, fields)

    def records(self) -> Iterator[dict[str, Any]]:
        after: tuple[str, str] | None = None
        while True:
            listing = Listing(filter=self.filter, search=None, sort=[], limit=_CHUNK, offset=0, after=after)
            with self.warehouse.catalog.reading() as records:
                page = records.objects.page(self.bucket_id, listing)[0]
            for stored in page:
                own = stored.model_dump(mode="json", exclude={"fields", "blobs"})
                yield {**stored.fields, **own, "metadata": stored.fields}
            if len(page) < _CHUNK:
                return
            after = (page[-1].created_at, page[-1].object_id)


def aggregate(source: Rows, body: Aggregation) -> dict[str, Any]:
    """`results` (group, metrics) and how many groups there are.

    Raises:
        Invalid: a field is no path, or an aggregate needs a field.
    """
    for name in [*(one.field for one in body.group_by), *(one.field for one in body.range_buckets), body.unwind]:
        if name is not None:
            field_path(name)
    for one in body.aggregations:
        if _operand(one) is None and one.function != "count":
            raise Invalid(f"{one.alias}: {one.function} needs a field")
        if (name := _operand(one)) is not None:
            field_path(name)
    rows = _in_sql(source, body) if body.is_plain else _by_reading(source, body)
    kept = [row for row in rows if all(_has(row[1].get(one.field), one) for one in body.having)]
    if body.sort_by:
        wanted = body.sort_by
        kept.sort(key=lambda row: sort_key(row[1].get(wanted, row[0].get(wanted))), reverse=body.sort_direction == "desc")
    else:
        first = body.aggregations[0].alias
        kept.sort(key=lambda row: sort_key(row[1].get(first)), reverse=body.sort_direction == "desc")
    results = [{"group": group, "metrics": metrics} for group, metrics in kept[: body.limit or _MOST]]
    return {"results": results, "total_groups": len(kept), "query_info": {"in_database": body.is_plain}}


def _operand(one: Operation) -> str | None:
    return one.distinct_field or one.field if one.function == "count_distinct" else one.field


def _has(value: Any, one: Having) -> bool:
    if one.operator in ("in", "nin"):
        return (value in one.value if isinstance(one.value, list) else False) is (one.operator == "in")
    if one.operator in ("eq", "ne"):
        return (value == one.value) is (one.operator == "eq")
    comparable = (is_number(value) and is_number(one.value)) or (isinstance(value, str) and isinstance(one.value, str))
    return comparable and ORDER[one.operator](value, one.value)


def _in_sql(source: Rows, body: Aggregation) -> list[Row]:
    keys = [one.field for one in body.group_by]
    found = source.aggregates(keys, [(one.function, _operand(one)) for one in body.aggregations])
    count = len(keys)
    return [
        (
            {one.name: canonical(row[place]) for place, one in enumerate(body.group_by)},
            {one.alias: _plain(row[count + place]) for place, one in enumerate(body.aggregations)},
        )
        for row in found
    ]


def _plain(value: Any) -> Any:
    """Decimals of Postgres as JSON numbers."""
    if value is None or isinstance(value, str | int | float | bool | list | dict):
        return canonical(value)
    number = float(value)
    return int(number) if number.is_integer() else number


def _by_reading(source: Rows, body: Aggregation) -> list[Row]:
    groups: dict[str, tuple[dict[str, Any], list[list[Any]]]] = {}
    for record in _unwound(source, body.unwind):
        group = {one.name: canonical(_group_value(record, one)) for one in body.group_by}
        group |= {one.field: _range(record, one) for one in body.range_buckets}
        _, values = groups.setdefault(repr(group), (group, [[] for _ in body.aggregations]))
        for collected, one in zip(values, body.aggregations):
            operand = _operand(one)
            collected.append(True if operand is None else _at(record, operand))
    return [
        (group, {one.alias: _FUNCTIONS[one.function](collected) for one, collected in zip(body.aggregations, values)})
        for group, values in groups.values()
    ]


def _unwound(source: Rows, unwind: str | None) -> Iterator[dict[str, Any]]:
    for record in source.records():
        if unwind is None:
            yield record
        else:
            for value in candidates(record, unwind.split(".")):
                yield {**record, unwind: value}


def _at(record: Mapping[str, Any], field: str) -> Any:
    return record[field] if field in record else value_at(record, field.split("."))


def _group_value(record: Mapping[str, Any], one: GroupBy) -> Any:
    value = _at(record, one.field)
    if one.date_trunc is None and one.date_part is None:
        return value
    instant = instant_us(value) if isinstance(value, str) else None
    if instant is None:
        return None
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=instant)
    if one.date_trunc is not None:
        return _truncated(moment, one.date_trunc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return _PARTS[one.date_part or "year"](moment)


def _truncated(moment: datetime, unit: Unit) -> datetime:
    if unit == "week":
        moment -= timedelta(days=moment.weekday())
        unit = "day"
    units: list[Unit] = ["year", "month", "day", "hour", "minute", "second"]
    zero = {"year": 1, "month": 1, "day": 1, "hour": 0, "minute": 0, "second": 0}
    return moment.replace(microsecond=0, **{name: zero[name] for name in units[units.index(unit) + 1 :]})  # type: ignore[arg-type]


_PARTS: Mapping[str, Callable[[datetime], int]] = {
    **{name: lambda moment, name=name: getattr(moment, name) for name in ("year", "month", "day", "hour", "minute", "second")},  # type: ignore[misc]
    "week": lambda moment: moment.isocalendar().week,
    "dayOfWeek": lambda moment: moment.isoweekday() % 7 + 1,
    "dayOfYear": lambda moment: moment.timetuple().tm_yday,
}


def _range(record: Mapping[str, Any], one: RangeBucket) -> str:
    value = _at(record, one.field)
    boundaries = sorted(one.boundaries, key=sort_key)
    for lower, upper in pairwise(boundaries):
        if sort_key(lower)[0] == sort_key(value)[0] and sort_key(lower) <= sort_key(value) < sort_key(upper):
            return f"{lower}-{upper}"
    return one.default_bucket


def _numbers(values: Sequence[Any]) -> list[Any]:
    return [value for value in values if is_number(value)]


def _given(values: Sequence[Any]) -> list[Any]:
    return [value for value in values if value is not None]


def _distinct(values: Sequence[Any]) -> list[Any]:
    return list({repr(canonical(value)): value for value in _given(values)}.values())


_FUNCTIONS: Mapping[str, Callable[[Sequence[Any]], Any]] = {
    "count": lambda values: len(_given(values)),
    "count_distinct": lambda values: len(_distinct(values)),
    "sum": lambda values: sum(_numbers(values)) if _numbers(values) else None,
    "avg": lambda values: sum(found) / len(found) if (found := _numbers(values)) else None,
    "min": lambda values: min(_given(values), key=sort_key, default=None),
    "max": lambda values: max(_given(values), key=sort_key, default=None),
    "first": lambda values: values[0] if values else None,
    "last": lambda values: values[-1] if values else None,
    "push": lambda values: _given(values)[:_MOST],
    "add_to_set": lambda values: _distinct(values)[:_MOST],
}
