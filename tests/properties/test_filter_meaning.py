"""One meaning, three implementations: `Filter.matches`, SQLite and Postgres agree on random records and random filters.

`MIXPEEK_EXAMPLES=20000 pytest tests/properties/test_filter_meaning.py` looks harder than the default.
"""

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sqlalchemy import JSON, Boolean, Column, Connection, Float, Integer, MetaData, String, Table, create_engine, event, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.pool import StaticPool

from mixpeek_dagster.catalog.queries import compile_filter, register_functions
from mixpeek_dagster.errors import Invalid
from mixpeek_dagster.models.comparison import distance_m, point_of
from mixpeek_dagster.models.filters import Filter

pytest_plugins = ["tests.postgres"]

EXAMPLES = int(os.environ.get("MIXPEEK_EXAMPLES", "250"))
thorough = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

Bytewise = String().with_variant(String(collation="C"), "postgresql")
rows = Table(
    "rows",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("name", Bytewise),
    Column("created_at", Bytewise),
    Column("size", Integer),
    Column("ratio", Float),
    Column("public", Boolean),
    Column("payload", JSON().with_variant(JSONB(), "postgresql"), nullable=False),
)
COLUMNS = {name: rows.c[name] for name in ("name", "created_at", "size", "ratio", "public")}

TEXTS = (
    *("", "a", "A", "ab", "Ab", "aB c", "b", "cars", "The CAR is red", "a-b", "red_car", "10", "5", "%", "_", "a%b", "[", "[1]", "{", "\\"),
    *("'", '"', "\x01", "\x02", "\x03t", "\x04", "\x7f", "\x80", "\n", "a\nb", "a ", " a", "true", "null", "é", "É", "café", "CAFÉ", "cafè"),
    *("Straße", "STRASSE", "ß", "ẞ", "İ", "i̇", "ı", "K", "k", "ſ", "s", "Σ", "σ", "ς", "ΟΔΟΣ", "οδος", "Москва", "МОСКВА", "ǅ", "ǆ", "Ａ"),
    *("ａ", "東京", "東京都", "😀", "a😀", "\U0010ffff", "\ud7ff", "\ue000", "x" * 255, "x" * 256, "X" * 257, "x" * 300 + "y", "é" * 260),
)
DATES = (
    *("2026-01-01", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00+00:00", "2026-01-01 00:00", "2025-12-31T23:30:00-00:30", "2024-02-29"),
    *("2023-02-29", "2026-01-01T01:00:00.5+01:00", "2026-01-01t00:00:00.500000z", "2026-01-01T00:00:00.4999999Z", "0001-01-01", "0000-01-01"),
    *("9999-12-31T23:59:59.999999-23:59", "2026-01-01T24:00:00Z", "2026-13-01", "2026-01-01\n", "2026-01-02T01:00+0530", "2026-01-01T05+01"),
    *("2025-12-31T20:00:00-12", "2026-01-01T00:00:60Z", "2026-01-01T10:20:30.123456789-0130", "1969-12-31T23:59:59.999999Z"),
)
NUMBERS = (0, 1, -1, 2, 5, 10, 0.0, -0.0, 1.0, 0.1, 0.5, -2.5, 1e-9, 1e15, 2**53 - 1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 1e300, 5e-324)
FIELDS = ("a", "b", "a.b", "a.b.c", "tags", "tags.b", "when", "place", "a.place", "deep.x.y", "ünï", "sp ace", "it's", "0", "tags.0", "%s", ":x")

texts = st.sampled_from(TEXTS + DATES) | st.text(st.sampled_from("aAbB éÉΣς_-.1xX"), max_size=6)
numbers = st.sampled_from(NUMBERS) | st.integers(-3, 12) | st.floats(-10, 10)
scalars = texts | numbers | st.booleans() | st.none()
degrees = st.sampled_from((0, 0.0, 1, 10, 44.5, 45, -45, 89.9, 90, 91, 179.5, 180, -180, -179.5, "1", None)) | st.floats(-90, 90)
points = st.fixed_dictionaries({"lat": degrees, "lon": degrees})
leaves = scalars | points | st.lists(scalars | points, max_size=4)
names = st.sampled_from(sorted({step for field in FIELDS for step in field.split(".")}))
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=6)
payloads = st.dictionaries(names, values, max_size=6)
records = st.fixed_dictionaries(
    {"payload": payloads},
    optional={
        "name": texts,
        "created_at": st.sampled_from(DATES) | texts,
        "size": st.integers(-(2**31), 2**31 - 1) | st.integers(-3, 12),
        "ratio": st.floats(-10, 10) | st.integers(-3, 3).map(float),
        "public": st.booleans(),
    },
)

fields = st.sampled_from((*FIELDS, *COLUMNS))
wanted_texts = texts | st.text(st.sampled_from("aAbcCrRsé"), min_size=1, max_size=3)
good_points = st.fixed_dictionaries({"lat": st.floats(-90, 90) | st.sampled_from((0, 45, 90)), "lon": st.floats(-180, 180)})
REGEXES = (
    *("a", "^a", "a$", "A.b", "[a-c]+", "[^a]", r"\bcar", r"car\b", r"\Bb", r"\d+", r"\w\s", r"\W", "(a|b)*c", "(a+)+$", "^$", "x{255}", "É"),
    *("[À-ÿ]", "σ", "c(a|é)?f", ".", "^.{2,3}$", r"\.", r"\u00e9", "a|", "(?:ab){2}", "[a-zß]+$", r"[\]\-\\]", "k", "ſ", "😀", r"\S+\D", "[^\n]$"),
)
regexes = st.sampled_from(REGEXES) | st.text(st.sampled_from("abAé.*+?()|[]^$\\bdwB1{},"), max_size=8)


def conditions() -> st.SearchStrategy[dict[str, Any]]:
    def of(operators: Sequence[str], value: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
        return st.fixed_dictionaries({"field": fields, "operator": st.sampled_from(operators), "value": value})

    ring = st.fixed_dictionaries({"points": st.lists(good_points, min_size=3, max_size=5)})
    return st.one_of(
        of(["eq", "ne"], scalars),
        of(["gt", "gte", "lt", "lte"], texts | numbers),
        of(["in", "nin"], st.lists(scalars, max_size=5) | st.lists(texts, min_size=17, max_size=25)),
        of(["contains"], wanted_texts | numbers | st.booleans()),
        of(["starts_with", "ends_with", "text"], wanted_texts),
        of(["phrase", "words"], wanted_texts),
        of(["regex"], regexes),
        of(["exists", "is_null"], st.booleans()),
        of(["geo_radius"], st.fixed_dictionaries({"center": good_points, "radius": st.floats(0, 2e7)})),
        of(["geo_bounding_box"], st.fixed_dictionaries({"top_left": good_points, "bottom_right": good_points})),
        of(["geo_polygon"], st.fixed_dictionaries({"exterior": ring}, optional={"interiors": st.lists(ring, max_size=1)})),
    )


def nodes(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    group = st.lists(inner, max_size=3)
    return st.fixed_dictionaries({}, optional={"AND": group, "OR": group, "NOT": group | inner})


trees = st.recursive(conditions(), nodes, max_leaves=5)
filters = st.tuples(trees, st.booleans()).map(lambda pair: {**pair[0], "case_sensitive": pair[1]})


def record_of(row: dict[str, Any]) -> dict[str, Any]:
    """What the reference sees: the payload, with columns in place of payload fields of the same name."""
    return {**{key: value for key, value in row["payload"].items() if key not in COLUMNS}, **{k: v for k, v in row.items() if k in COLUMNS}}


@pytest.fixture(scope="session")
def sqlite() -> Iterator[Connection]:
    engine = create_engine("sqlite://", poolclass=StaticPool, json_serializer=lambda value: json.dumps(value, ensure_ascii=False))
    event.listen(engine, "connect", lambda connection, _: register_functions(connection))
    with engine.connect() as connection:
        rows.create(connection)
        yield connection
    engine.dispose()


@pytest.fixture(scope="session")
def postgres(postgres_url: str) -> Iterator[Connection]:
    engine = create_engine(postgres_url)
    with engine.connect() as connection:
        rows.create(connection)
        yield connection
        connection.rollback()
    engine.dispose()


def found(connection: Connection, stored: list[dict[str, Any]], wire: list[Filter]) -> list[list[int]]:
    dialect = connection.dialect.name
    assert dialect in ("sqlite", "postgresql")
    with connection.begin_nested():
        connection.execute(rows.delete())
        connection.execute(rows.insert(), [{**dict.fromkeys(COLUMNS), **row, "id": place} for place, row in enumerate(stored)])
        results = []
        for filter in wire:
            predicate = compile_filter(filter, columns=COLUMNS, payload=rows.c.payload, dialect=dialect)  # type: ignore[arg-type]
            results.append(list(connection.execute(select(rows.c.id).where(predicate).order_by(rows.c.id)).scalars()))
    return results


def parsed(wire: list[Any]) -> list[Filter]:
    good = []
    for one in wire:
        try:
            good.append(Filter.parse(one))
        except Invalid:
            continue
    assume(good)
    return good


def is_clear(filter: Filter, stored: list[dict[str, Any]]) -> bool:
    """No point lies within a centimetre of a circle's edge, where the last bit of a sine decides."""

    def all_points(value: Any) -> Iterator[tuple[float, float]]:
        if point := point_of(value):
            yield point
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from all_points(inner)

    circles = [condition.value for condition in filter.conditions() if condition.operator == "geo_radius"]
    return all(abs(distance_m(c.center, point) - c.radius_m) > 0.01 for c in circles for row in stored for point in all_points(row["payload"]))


@thorough
@given(stored=st.lists(records, min_size=1, max_size=8), wire=st.lists(filters, min_size=1, max_size=4))
def test_sqlite_means_what_the_reference_means(sqlite: Connection, stored: list[dict[str, Any]], wire: list[Any]) -> None:
    asked = [filter for filter in parsed(wire) if is_clear(filter, stored)]
    expected = [[place for place, row in enumerate(stored) if filter.matches(record_of(row))] for filter in asked]
    assert dict(zip(map(str, asked), found(sqlite, stored, asked))) == dict(zip(map(str, asked), expected))


@thorough
@given(stored=st.lists(records, min_size=1, max_size=8), wire=st.lists(filters, min_size=1, max_size=4))
def test_postgres_means_what_the_reference_means(postgres: Connection, stored: list[dict[str, Any]], wire: list[Any]) -> None:
    asked = [filter for filter in parsed(wire) if is_clear(filter, stored)]
    expected = [[place for place, row in enumerate(stored) if filter.matches(record_of(row))] for filter in asked]
    assert dict(zip(map(str, asked), found(postgres, stored, asked))) == dict(zip(map(str, asked), expected))


@thorough
@given(wire=filters)
def test_a_filter_written_out_parses_to_itself(wire: Any) -> None:
    (filter,) = parsed([wire])
    again = Filter.parse(json.loads(json.dumps(filter.to_json())))
    assert again.conditions() == filter.conditions()
