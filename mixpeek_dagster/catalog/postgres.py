"""Payload fields on Postgres: paths in a JSONB document.

Texts are one expression under collation C (bytes, which is the order of code points), in which booleans and what is no scalar are
marked by control characters; numbers are a numeric one, in which what is no scalar is NaN, which sorts last. Everything is said
in functions that every supported version has and that depend on no setting of the server.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import ge, le

from sqlalchemy import (
    ColumnElement,
    Integer,
    Numeric,
    String,
    TableValuedAlias,
    Text,
    and_,
    case,
    cast,
    collate,
    column,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
    true,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import DOUBLE_PRECISION, JSONB

from mixpeek_dagster.catalog.operands import (
    KEY_LENGTH,
    ONE,
    Bound,
    Dialect,
    Operand,
    Sql,
    Test,
    View,
    decimal,
    quoted,
    variants,
    written,
)
from mixpeek_dagster.models.comparison import EARTH_RADIUS_M, INSTANT_PATTERN, TINY, fold, fold_table
from mixpeek_dagster.models.filters import Condition
from mixpeek_dagster.models.geometry import Box, Circle, Polygon, Region

FALSE, TRUE, OTHER = (literal_column(f"chr({code})", String()) for code in (3, 4, 2))
NAN: Sql = literal_column("'NaN'::numeric", Numeric())
_ARRAY: Sql = literal_column("'array'")


class PostgresFunctions:
    """See `Functions`."""

    dialect: Dialect = "postgresql"

    def fold(self, operand: Operand, wanted: str | None) -> Sql:
        if wanted is not None:
            return func.translate(operand.folded, *variants(wanted))
        upper = [code for code in fold_table() if code >= 0x80]
        table = "".join(map(chr, upper)), "".join(chr(fold_table()[code]) for code in upper)
        plain = func.octet_length(operand.folded) == func.char_length(operand.folded)
        return case((plain, operand.folded), else_=func.translate(operand.folded, *table))

    def instant_us(self, text: Sql) -> Sql:
        def whole(sql: Sql) -> Sql:
            return cast(func.coalesce(func.nullif(sql, ""), "0"), Integer)

        def part(pattern: str) -> Sql:
            return func.substring(text, pattern)

        day = func.make_date(whole(func.substr(text, 1, 4)), whole(func.substr(text, 6, 2)), whole(func.substr(text, 9, 2)))
        seconds: Sql = (day - literal_column("DATE '1970-01-01'")) * literal_column("86400::bigint")
        seconds = seconds + whole(func.substr(text, 12, 2)) * 3600 + whole(func.substr(text, 15, 2)) * 60
        seconds = seconds + whole(part("^.{16}:([0-9]{2})"))
        zone = part("^.{16}.*([+-][0-9]{2}:?[0-9]{0,2})$")
        offset: Sql = whole(func.substr(zone, 2, 2)) * 3600 + whole(func.replace(func.substr(zone, 4), ":", "")) * 60
        seconds = seconds - case((func.substr(zone, 1, 1) == "-", -offset), else_=offset)
        fraction = whole(func.rpad(part("[.]([0-9]{1,6})"), 6, "0"))
        return case((text.op("~")(INSTANT_PATTERN), seconds * literal_column("1000000::bigint") + fraction))

    def has(self, text: Sql, part: Sql) -> ColumnElement[bool]:
        return func.strpos(text, part) > 0

    def ends(self, text: Sql, end: str) -> ColumnElement[bool]:
        return func.right(text, len(end)) == end

    def search(self, text: Sql, condition: Condition) -> ColumnElement[bool]:
        def found(pattern: str, limit: int | None) -> ColumnElement[bool]:
            return (text if limit is None else func.left(text, limit)).op("~", is_comparison=True)(pattern)

        return and_(*(found(pattern.postgres, pattern.max_length) for pattern in condition.searches))


FUNCTIONS = PostgresFunctions()


@dataclass(frozen=True)
class PostgresField:
    """A dotted path in the payload."""

    payload: Sql
    path: tuple[str, ...]

    def operand(self) -> Operand:
        return _own(self)

    def any(self, condition: Condition, test: Test, *, view: View) -> ColumnElement[bool]:
        operand = self.operand()
        return or_(test(operand), and_(operand.view(view) == _marker(view), self._inside(test)))

    def near(self, first: Bound, last: Bound, *, view: View) -> list[ColumnElement[bool]]:
        key = self.operand().view(view)
        bounds = [
            order(key, decimal(end) if view == "number" else literal(end))
            for order, end in ((ge, first), (le, last))
            if end is not None
        ]
        return [or_(and_(*bounds), key == _marker(view))] if bounds else []

    def equals(self, condition: Condition, test: Test, *, view: View, values: Sequence[Sql]) -> ColumnElement[bool]:
        operand, marker = self.operand(), _marker(view)
        key = operand.view(view)
        return and_(key.in_([*values, marker]), or_(test(operand), and_(key == marker, self._inside(test))))

    def contains(self, condition: Condition, within: Test, element: Test) -> ColumnElement[bool]:
        reached = self.reach().table_valued(column("v", JSONB)).render_derived()
        items = case((func.jsonb_typeof(reached.c.v) == _ARRAY, reached.c.v))
        each = func.jsonb_array_elements(items).table_valued(column("v", JSONB)).render_derived()
        inside = select(ONE).select_from(each).where(element(_scalar(each.c.v))).exists()
        found = select(ONE).select_from(reached).where(or_(within(_scalar(reached.c.v)), inside)).exists()
        operand = self.operand()
        return or_(within(operand), and_(operand.view("text") == OTHER, found))

    def region(self, condition: Condition) -> ColumnElement[bool]:
        each = self.reach("[*]").table_valued(column("v", JSONB)).render_derived()
        found = select(ONE).select_from(each).where(_in_region(each.c.v, condition.value)).exists()
        return and_(self.operand().view("text") == OTHER, found)

    def is_reached(self, condition: Condition) -> ColumnElement[bool]:
        return self.at().is_not(None) if len(self.path) == 1 else self._some(lambda value: true())

    def is_given(self, condition: Condition) -> ColumnElement[bool]:
        def given(value: Sql) -> ColumnElement[bool]:
            return func.jsonb_typeof(value) != literal_column("'null'")

        return given(self.at()) if len(self.path) == 1 else self._some(given)

    def at(self, depth: int | None = None) -> Sql:
        """The value after so many steps through objects only, by default all."""
        sql: Sql = type_coerce(self.payload, JSONB)
        for step in self.path[:depth]:
            sql = sql.op("->", precedence=15, return_type=JSONB())(quoted(step))
        return sql

    def middle(self) -> ColumnElement[bool]:
        """An array lies on the way."""
        return or_(*(func.jsonb_typeof(self.at(depth)) == _ARRAY for depth in range(1, len(self.path))))

    def json_path(self, suffix: str = "") -> Sql:
        """The path in lax mode, which steps into arrays as `comparison.reached` does."""
        path = "lax $" + "".join(f'."{step}"' for step in self.path) + suffix
        return quoted(path).op("::", precedence=15)(literal_column("jsonpath"))

    def reach(self, suffix: str = "") -> Sql:
        """A set of the values at the path."""
        return func.jsonb_path_query(type_coerce(self.payload, JSONB), self.json_path(suffix))

    def _some(self, test: Callable[[Sql], ColumnElement[bool]]) -> ColumnElement[bool]:
        reached = self.reach().table_valued(column("v", JSONB)).render_derived()
        return select(ONE).select_from(reached).where(test(reached.c.v)).exists()

    def _inside(self, test: Test) -> ColumnElement[bool]:
        each, element = _elements(self)
        return select(ONE).select_from(each).where(test(element)).exists()


# What depends on the field alone is made once: queries name the same few fields again and again.
@lru_cache(1024)
def _own(field: PostgresField) -> Operand:
    text = field.at(len(field.path) - 1).op("->>", precedence=15, return_type=String())(quoted(field.path[-1]))
    operand = _operand(field.at(), text, field.middle() if len(field.path) > 1 else None, KEY_LENGTH)
    written_text, folded, number = (written(view, "postgresql") for view in (operand.text, operand.folded, operand.number))
    return replace(operand, text=written_text, folded=folded, number=number)


@lru_cache(1024)
def _elements(field: PostgresField) -> tuple[TableValuedAlias, Operand]:
    each = field.reach("[*]").table_valued(column("v", JSONB)).render_derived()
    return each, _scalar(each.c.v)


def _marker(view: View) -> Sql:
    return NAN if view == "number" else OTHER


def _scalar(value: Sql) -> Operand:
    return _operand(value, value.op("#>>", precedence=15, return_type=String())(literal_column("'{}'")), None, None)


def _operand(value: Sql, raw: Sql, middle: ColumnElement[bool] | None, key_length: int | None) -> Operand:
    kind = func.jsonb_typeof(value)

    def by_kind(then: dict[str, Sql], marker: Sql) -> Sql:
        whens: list[tuple[Sql, Sql]] = [
            (literal_column(f"'{name}'"), sql) for name, sql in {**then, "array": marker, "object": marker}.items()
        ]
        return case(*whens, value=kind, else_=null() if middle is None else case((middle, marker)))

    truth = case((raw == literal_column("'true'"), TRUE), else_=FALSE)
    text = collate(type_coerce(by_kind({"string": raw, "boolean": truth}, OTHER), String()), "C")
    number = type_coerce(by_kind({"number": cast(raw, Numeric)}, NAN), Numeric())
    is_text = kind == literal_column("'string'")
    return Operand(
        text, func.lower(text), number, is_text, TRUE, FALSE, FUNCTIONS, key_length=key_length, numbers_below=NAN, is_decimal=True
    )


def _in_region(value: Sql, region: Region) -> ColumnElement[bool]:
    def degrees(name: str, limit: int) -> Sql:
        given = value.op("->", precedence=15, return_type=JSONB())(quoted(name))
        number = cast(value.op("->>", precedence=15, return_type=String())(quoted(name)), Numeric)
        within = case((func.jsonb_typeof(given) == literal_column("'number'"), number))
        tiny: tuple[ColumnElement[bool], Sql] = (func.abs(within) < decimal(TINY), literal_column("0::float8"))
        return case(tiny, (func.abs(within) <= limit, cast(within, DOUBLE_PRECISION)))

    lat, lon = degrees("lat", 90), degrees("lon", 180)
    match region:
        case Box():
            beyond = or_(lon >= region.left, lon <= region.right)
            across = and_(lon >= region.left, lon <= region.right) if region.left <= region.right else beyond
            return and_(lat >= region.bottom, lat <= region.top, across)
        case Circle():
            center_lat, center_lon = (literal(degree, DOUBLE_PRECISION) for degree in region.center)
            half_lat, half_lon = func.radians(lat - center_lat) / 2, func.radians(lon - center_lon) / 2
            cosines = func.cos(func.radians(center_lat)) * func.cos(func.radians(lat))
            h = func.power(func.sin(half_lat), 2) + cosines * func.power(func.sin(half_lon), 2)
            return 2 * literal(EARTH_RADIUS_M, DOUBLE_PRECISION) * func.asin(func.sqrt(func.least(1.0, h))) <= region.radius_m
        case Polygon():
            outer, *holes = (_in_ring(lat, lon, ring) for ring in region.rings)
            lats, lons = ([edge[axis] for edge in region.rings[0]] for axis in (0, 1))
            return and_(lat.between(min(lats), max(lats)), lon.between(min(lons), max(lons)), outer, *(~hole for hole in holes))
    raise AssertionError(region)


def _in_ring(lat: Sql, lon: Sql, ring: Sequence[tuple[float, float, float, float]]) -> ColumnElement[bool]:
    """`geometry._inside`, with the same arithmetic in the same order."""
    degrees = [column(name, DOUBLE_PRECISION) for name in ("lat_a", "lon_a", "lat_b", "lon_b")]
    edges = cast(literal(json.dumps([dict(zip(("lat_a", "lon_a", "lat_b", "lon_b"), edge)) for edge in ring])), JSONB)
    each = func.jsonb_to_recordset(edges).table_valued(*degrees).render_derived(with_types=True)
    lat_a, lon_a, lat_b, lon_b = each.c
    spans = (lat_a > lat) != (lat_b > lat)
    east = lon < (lon_b - lon_a) * (lat - lat_a) / case((lat_b != lat_a, lat_b - lat_a)) + lon_a
    count = select(func.count()).select_from(each).where(spans, east).scalar_subquery()
    return count % 2 == 1


def searched(term: str, payload: Sql) -> ColumnElement[bool]:
    """Some text of the payload contains the term. The whole JSON is looked at first: most documents are out after that."""
    wanted = fold(term)

    def has(text: Sql, part: str) -> ColumnElement[bool]:
        lowered = func.lower(collate(text, "C"))
        return FUNCTIONS.has(lowered if wanted.isascii() else func.translate(lowered, *variants(wanted)), literal(part))

    strings: Sql = literal_column("""'lax $.** ? (@.type() == "string")'::jsonpath""")
    each = func.jsonb_path_query(type_coerce(payload, JSONB), strings).table_valued(column("v", JSONB)).render_derived()
    text = each.c.v.op("#>>", precedence=15, return_type=String())(literal_column("'{}'"))
    near = has(cast(payload, Text), json.dumps(wanted, ensure_ascii=False)[1:-1])
    return and_(near, select(ONE).select_from(each).where(has(text, wanted)).exists())


def group_key(field: PostgresField) -> Sql:
    """`value_at` as JSONB; NULL for null and missing."""
    value, path = field.at(), field.json_path()
    own = case((func.jsonb_typeof(value) != literal_column("'null'"), value))
    if len(field.path) == 1:
        return own
    return case((field.middle(), func.jsonb_path_query_array(type_coerce(field.payload, JSONB), path)), else_=own)
