"""One meaning, three implementations: `Filter.matches`, SQLite and Postgres agree on random records and random filters.

`MIXPEEK_EXAMPLES=20000 pytest tests/properties/test_filter_meaning.py` looks harder than the default.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    func,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.pool import StaticPool

from mixpeek_dagster.catalog.functions import canonical
from mixpeek_dagster.catalog.groups import aggregate, distinct_values, group_expression
from mixpeek_dagster.catalog.operands import Dialect
from mixpeek_dagster.catalog.pages import Cursor, decode_cursor, encode_cursor, order_by, searched
from mixpeek_dagster.catalog.queries import compile_filter, register_functions
from mixpeek_dagster.errors import Invalid
from mixpeek_dagster.models.comparison import candidates, distance_m, point_of, search_matches, sort_key, value_at
from mixpeek_dagster.models.filters import Filter

EXAMPLES = int(os.environ.get("MIXPEEK_EXAMPLES", "60"))
thorough = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

Bytewise = String().with_variant(String(collation="C"), "postgresql")
rows = Table(
    "rows",
    MetaData(),
    Column("id", Bytewise, primary_key=True),
    Column("name", Bytewise),
    Column("created_at", Bytewise),
    Column("size", Integer),
    Column("ratio", Float),
    Column("public", Boolean),
    Column("payload", JSON().with_variant(JSONB(), "postgresql"), nullable=False),
)
COLUMNS = {name: rows.c[name] for name in ("name", "created_at", "size", "ratio", "public")}

TEXTS = (
    *(
        "",
        "a",
        "A",
        "ab",
        "Ab",
        "aB c",
        "b",
        "cars",
        "The CAR is red",
        "a-b",
        "red_car",
        "10",
        "5",
        "%",
        "_",
        "a%b",
        "[",
        "[1]",
        "{",
        "\\",
    ),
    *(
        "'",
        '"',
        "\x01",
        "\x02",
        "\x03t",
        "\x04",
        "\x7f",
        "\x80",
        "\n",
        "a\nb",
        "a ",
        " a",
        "true",
        "null",
        "é",
        "É",
        "café",
        "CAFÉ",
        "cafè",
    ),
    *(
        "Straße",
        "STRASSE",
        "ß",
        "ẞ",
        "İ",
        "i̇",
        "ı",
        "K",
        "k",
        "ſ",
        "s",
        "Σ",
        "σ",
        "ς",
        "ΟΔΟΣ",
        "οδος",
        "Москва",
        "МОСКВА",
        "ǅ",
        "ǆ",
        "Ａ",
    ),
    *(
        "ａ",
        "東京",
        "東京都",
        "😀",
        "a😀",
        "\U0010ffff",
        "\ud7ff",
        "\ue000",
        "x" * 255,
        "x" * 256,
        "X" * 257,
        "x" * 300 + "y",
        "é" * 260,
    ),
)
DATES = (
    *(
        "2026-01-01",
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:00:00+00:00",
        "2026-01-01 00:00",
        "2025-12-31T23:30:00-00:30",
        "2024-02-29",
    ),
    *(
        "2023-02-29",
        "2026-01-01T01:00:00.5+01:00",
        "2026-01-01t00:00:00.500000z",
        "2026-01-01T00:00:00.4999999Z",
        "0001-01-01",
        "0000-01-01",
    ),
    *(
        "9999-12-31T23:59:59.999999-23:59",
        "2026-01-01T24:00:00Z",
        "2026-13-01",
        "2026-01-01\n",
        "2026-01-02T01:00+0530",
        "2026-01-01T05+01",
    ),
    *("2025-12-31T20:00:00-12", "2026-01-01T00:00:60Z", "2026-01-01T10:20:30.123456789-0130", "1969-12-31T23:59:59.999999Z"),
)
NUMBERS = (
    0,
    1,
    -1,
    2,
    5,
    10,
    0.0,
    -0.0,
    1.0,
    0.1,
    0.5,
    -2.5,
    1e-9,
    1e15,
    2**53 - 1,
    2**53,
    2**53 + 1,
    2**63 - 1,
    -(2**63),
    1e300,
    5e-324,
)
FIELDS = (
    "a",
    "b",
    "a.b",
    "a.b.c",
    "tags",
    "tags.b",
    "when",
    "place",
    "a.place",
    "deep.x.y",
    "ünï",
    "sp ace",
    "it's",
    "0",
    "tags.0",
    "%s",
    ":x",
)

FEW_TEXTS = (
    "a",
    "A",
    "ab",
    "Ab",
    "é",
    "É",
    "The CAR is red",
    "red cars",
    "ΟΔΟΣ",
    "οδος",
    "2026-01-01",
    "2026-01-01T01:00:00+01:00",
    "2026-02-01",
)
FEW_FIELDS = ("a", "a", "a", "b", "a.b", "tags", "place", "name", "created_at")

few_texts = st.sampled_from(FEW_TEXTS)
texts = few_texts | few_texts | st.sampled_from(TEXTS + DATES) | st.text(st.sampled_from("aAbB éÉΣς_-.1xX"), max_size=6)
numbers = st.sampled_from((0, 1, 1.0, 5)) | st.sampled_from(NUMBERS) | st.integers(-3, 12) | st.floats(-10, 10)
scalars = texts | numbers | st.booleans() | st.none()
degrees = st.sampled_from((0, 0.0, 1, 10, 44.5, 45, -45, 89.9, 90, 91, 179.5, 180, -180, -179.5, "1", None)) | st.floats(-90, 90)
points = st.fixed_dictionaries({"lat": st.floats(-90, 90), "lon": st.floats(-180, 180)}) | st.fixed_dictionaries(
    {"lat": degrees, "lon": degrees}
)
leaves = scalars | points | st.lists(scalars | points, max_size=4)
names = st.sampled_from(sorted({step for field in FIELDS for step in field.split(".")}))
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=6)
likely = st.fixed_dictionaries(
    {},
    optional={
        "a": leaves | st.fixed_dictionaries({"b": leaves}),
        "b": scalars,
        "tags": st.lists(scalars, max_size=4),
        "place": points,
    },
)
payloads = likely | likely | st.dictionaries(names, values, max_size=6)
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

fields = st.sampled_from(FEW_FIELDS) | st.sampled_from(FEW_FIELDS) | st.sampled_from((*FIELDS, *COLUMNS))
parts = st.sampled_from(("a", "A", "e", "é", "É", "car", "CARS", "red", "the car", "is RED", "ος", "ο", "2026"))
wanted_texts = parts | parts | texts | st.text(st.sampled_from("aAbcCrRsé"), min_size=1, max_size=3)
good_points = st.fixed_dictionaries({"lat": st.floats(-90, 90) | st.sampled_from((0, 45, 90)), "lon": st.floats(-180, 180)})
REGEXES = (
    *(
        "a",
        "^a",
        "a$",
        "A.b",
        "[a-c]+",
        "[^a]",
        r"\bcar",
        r"car\b",
        r"\Bb",
        r"\d+",
        r"\w\s",
        r"\W",
        "(a|b)*c",
        "(a+)+$",
        "^$",
        "x{255}",
        "É",
    ),
    *(
        "[À-ÿ]",
        "σ",
        "c(a|é)?f",
        ".",
        "^.{2,3}$",
        r"\.",
        r"\u00e9",
        "a|",
        "(?:ab){2}",
        "[a-zß]+$",
        r"[\]\-\\]",
        "k",
        "ſ",
        "😀",
        r"\S+\D",
        "[^\n]$",
    ),
)
regexes = st.sampled_from(REGEXES) | st.text(st.sampled_from("abAé.*+?()|[]^$\\bdwB1{},"), max_size=8)


def conditions() -> st.SearchStrategy[dict[str, Any]]:
    places = st.sampled_from(("place", "place", "a", "a.b", "tags"))

    def of(operators: Sequence[str], value: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
        where = places if operators[0].startswith("geo") else fields
        return st.fixed_dictionaries({"field": where, "operator": st.sampled_from(operators), "value": value})

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
        of(["geo_bounding_box"], st.fixed_dictionaries({"top_left": good_points, "bottom_right": good_points}).map(upright)),
        of(["geo_polygon"], st.fixed_dictionaries({"exterior": ring}, optional={"interiors": st.lists(ring, max_size=1)})),
    )


def upright(box: dict[str, Any]) -> dict[str, Any]:
    lats = sorted((box["top_left"]["lat"], box["bottom_right"]["lat"]))
    return {"top_left": {**box["top_left"], "lat": lats[1]}, "bottom_right": {**box["bottom_right"], "lat": lats[0]}}


def nodes(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    group = st.lists(inner, max_size=3)
    return st.fixed_dictionaries({}, optional={"AND": group, "OR": group, "NOT": group | inner})


def leaves_of(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every (dotted path, value) that a filter could be aimed at."""
    if isinstance(value, list):
        for inner in value:
            yield from leaves_of(inner, path)
        return
    if path:
        yield ".".join(path), value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves_of(inner, (*path, key))


@st.composite
def aimed(draw: st.DrawFn, stored: list[dict[str, Any]]) -> dict[str, Any]:
    """A condition made from something that is stored, so that it has a fair chance to hold."""
    targets = [leaf for row in stored for leaf in leaves_of(record_of(row))]
    if not targets:
        return draw(conditions())
    field, value = draw(st.sampled_from(targets))
    if isinstance(value, str):
        start, end = sorted(draw(st.lists(st.integers(0, len(value)), min_size=2, max_size=2)))
        part = draw(st.sampled_from((value, value[start:end], value[:end], value[start:], *value.split())))
        part = draw(st.sampled_from((part, part.swapcase(), part.upper(), part.title())))
        operators = (
            "eq",
            "ne",
            "in",
            "nin",
            "gt",
            "gte",
            "lt",
            "lte",
            "contains",
            "starts_with",
            "ends_with",
            "text",
            "phrase",
            "words",
            "regex",
        )
        operator = draw(st.sampled_from(operators))
        wanted: Any = re.escape(part).replace(r"\ ", " ") if operator == "regex" else part
    elif isinstance(value, dict) and point_of(value):
        operator = draw(st.sampled_from(("geo_radius", "geo_bounding_box", "geo_polygon")))
        size = draw(st.sampled_from((0.001, 1, 30)))
        north, south = min(90, value["lat"] + size), max(-90, value["lat"] - size / 3)
        west, east = max(-180, value["lon"] - size / 7), min(180, value["lon"] + size)
        a, b, c, d = ({"lat": lat, "lon": lon} for lat, lon in ((north, west), (north, east), (south, east), (south, west)))
        wanted = {"center": a, "radius": size * 2e5, "top_left": a, "bottom_right": c, "exterior": {"points": [a, b, c, d]}}
    else:
        operator = draw(st.sampled_from(("eq", "ne", "in", "nin", "gt", "gte", "lt", "lte", "contains", "exists", "is_null")))
        wanted = True if operator in ("exists", "is_null") else value
    if operator in ("in", "nin"):
        wanted = [wanted, *draw(st.lists(scalars, max_size=3))]
    return {"field": field, "operator": operator, "value": wanted}


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[Any]]:
    """Some records, and some filters to ask them for."""
    stored = draw(st.lists(records, min_size=1, max_size=8))
    trees = st.recursive(aimed(stored) | aimed(stored) | conditions(), nodes, max_leaves=4)
    filters = st.tuples(trees, st.booleans()).map(lambda pair: {**pair[0], "case_sensitive": pair[1]})
    return stored, draw(st.lists(filters, min_size=1, max_size=6))


def record_of(row: dict[str, Any]) -> dict[str, Any]:
    """What the reference sees: the payload, with columns in place of payload fields of the same name."""
    return {
        **{key: value for key, value in row["payload"].items() if key not in COLUMNS},
        **{k: v for k, v in row.items() if k in COLUMNS},
    }


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


def dialect_of(connection: Connection) -> Dialect:
    return "sqlite" if connection.dialect.name == "sqlite" else "postgresql"


def found(connection: Connection, stored: list[dict[str, Any]], asked: list[Filter]) -> list[list[int]]:
    with connection.begin_nested():
        connection.execute(rows.delete())
        connection.execute(
            rows.insert(), [{**dict.fromkeys(COLUMNS), **row, "id": str(place)} for place, row in enumerate(stored)]
        )
        results = []
        for filter in asked:
            predicate = compile_filter(filter, columns=COLUMNS, payload=rows.c.payload, dialect=dialect_of(connection))
            results.append(
                [int(place) for place in connection.execute(select(rows.c.id).where(predicate).order_by(rows.c.id)).scalars()]
            )
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
    return all(
        abs(distance_m(c.center, point) - c.radius_m) > 0.01
        for c in circles
        for row in stored
        for point in all_points(row["payload"])
    )


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Connection:
    name = "sqlite" if request.param == "sqlite" else "postgres"
    connection: Connection = request.getfixturevalue(name)
    return connection


@thorough
@given(world=worlds())
def test_sql_means_what_the_reference_means(database: Connection, world: tuple[list[dict[str, Any]], list[Any]]) -> None:
    stored, wire = world
    asked = [filter for filter in parsed(wire) if is_clear(filter, stored)]
    expected = [[place for place, row in enumerate(stored) if filter.matches(record_of(row))] for filter in asked]
    assert list(zip(asked, found(database, stored, asked))) == list(zip(asked, expected))


@thorough
@given(world=worlds())
def test_a_filter_written_out_parses_to_itself(world: tuple[list[dict[str, Any]], list[Any]]) -> None:
    for filter in parsed(world[1]):
        assert Filter.parse(json.loads(json.dumps(filter.to_json()))) == filter


def store(connection: Connection, stored: list[dict[str, Any]]) -> None:
    connection.execute(rows.delete())
    # Ids are not in the order of insertion, nor of anything else.
    some = [{**dict.fromkeys(COLUMNS), **row, "id": f"doc_{place * 7 % 10}{place}"} for place, row in enumerate(stored)]
    connection.execute(rows.insert(), some)


sort_fields = st.sampled_from((*FEW_FIELDS, "size", "public", "tags.b", "id"))


@thorough
@given(stored=st.lists(records, min_size=1, max_size=10), field=sort_fields, descending=st.booleans(), limit=st.integers(1, 4))
def test_pages_follow_the_order_of_the_reference(
    database: Connection, stored: list[dict[str, Any]], field: str, descending: bool, limit: int
) -> None:
    columns = {**COLUMNS, "id": rows.c.id}
    order = order_by(
        field, descending=descending, columns=columns, payload=rows.c.payload, document_id=rows.c.id, dialect=dialect_of(database)
    )
    with database.begin_nested():
        store(database, stored)
        everything = [dict(row) for row in database.execute(select(rows)).mappings()]
        seen: list[str] = []
        cursor: Cursor | None = None
        while len(seen) <= len(stored):
            query = select(rows).order_by(*order.clauses).limit(limit)
            page = database.execute(query.where(order.after(cursor)) if cursor else query).mappings().all()
            seen += [row["id"] for row in page]
            if len(page) < limit:
                break
            last = Cursor(sort_value(dict(page[-1]), field), page[-1]["id"])
            cursor = decode_cursor(encode_cursor(last, scope="s"), scope="s")

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        return (*sort_key(sort_value(row, field)), row["id"])

    given_ = sorted((row for row in everything if sort_value(row, field) is not None), key=key, reverse=descending)
    missing = sorted((row for row in everything if sort_value(row, field) is None), key=key, reverse=descending)
    assert seen == [row["id"] for row in given_ + missing]


def sort_value(row: dict[str, Any], field: str) -> Any:
    return row["id"] if field == "id" else value_at(record_of(row), field.split("."))


@thorough
@given(stored=st.lists(records, min_size=1, max_size=10), field=st.sampled_from((*FEW_FIELDS, "size", "public", "tags.b")))
def test_groups_and_distinct_values_are_those_of_the_reference(
    database: Connection, stored: list[dict[str, Any]], field: str
) -> None:
    known = {"columns": COLUMNS, "payload": rows.c.payload, "dialect": dialect_of(database)}
    key = group_expression(field, **known)  # type: ignore[arg-type]
    distinct = distinct_values(field, source=rows, where=true(), limit=1000, **known)  # type: ignore[arg-type]
    with database.begin_nested():
        store(database, stored)
        groups = [(spelled(value), count) for value, count in database.execute(select(key, func.count()).group_by(key))]
        values = [(spelled(value), count) for value, count in database.execute(distinct)]
        numbers = database.execute(select(*(aggregate(name, field, **known) for name in ("count", "count_distinct")))).one()  # type: ignore[arg-type]
    seen = [record_of(row) for row in stored]
    keys = Counter(spelled(value_at(record, field.split("."))) for record in seen)
    assert sorted(groups) == sorted(keys.items())
    inside = Counter(spelled(value) for record in seen for value in candidates(record, field.split(".")) if value is not None)
    assert sorted(values) == sorted(inside.items())
    assert [count for _, count in values] == sorted((count for _, count in values), reverse=True)
    del keys["null"]
    assert tuple(numbers) == (sum(keys.values()), len(keys))


def spelled(value: Any) -> str:
    return json.dumps(canonical(value), sort_keys=True)


@thorough
@given(stored=st.lists(records, min_size=1, max_size=8), terms=st.lists(wanted_texts, min_size=1, max_size=5))
def test_search_means_what_the_reference_means(database: Connection, stored: list[dict[str, Any]], terms: list[str]) -> None:
    with database.begin_nested():
        store(database, stored)
        for term in terms:
            query = select(rows.c.payload).where(searched(term, payload=rows.c.payload, dialect=dialect_of(database)))
            expected = [row["payload"] for row in stored if search_matches(row["payload"], term)]
            assert sorted(map(spelled, database.execute(query).scalars())) == sorted(map(spelled, expected))
