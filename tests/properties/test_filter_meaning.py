"""One meaning, three implementations: `Filter.matches`, SQLite and Postgres agree on random records and random filters.

`MIXPEEK_EXAMPLES=20000 pytest tests/properties/test_filter_meaning.py` looks harder than the default.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
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
    false,
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
from tests.properties.worlds import (
    COLUMN_NAMES,
    FEW_FIELDS,
    corpus,
    placed,
    questions,
    record_of,
    records,
    wanted_texts,
    worlds,
)

EXAMPLES = int(os.environ.get("MIXPEEK_EXAMPLES", "40"))
thorough = settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))

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
COLUMNS = {name: rows.c[name] for name in COLUMN_NAMES}


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


def test_every_operator_on_every_kind_of_value(database: Connection) -> None:
    """Not left to chance: each value as a field, in an array, in an object and in an object in an array."""
    stored = [{"payload": placed(value)} for value in corpus()]
    asked = [Filter.parse(wire) for wire in questions(max(12, EXAMPLES // 50))]
    known = {"columns": COLUMNS, "payload": rows.c.payload, "dialect": dialect_of(database)}
    with database.begin_nested():
        store(database, stored)
        payloads = {row.id: row.payload for row in database.execute(select(rows.c.id, rows.c.payload))}
        for start in range(0, len(asked), 50):
            some = asked[start : start + 50]
            predicates = [func.coalesce(compile_filter(filter, **known), false()) for filter in some]  # type: ignore[arg-type]
            for document_id, *answers in database.execute(select(rows.c.id, *predicates)):
                for filter, answer in zip(some, answers):
                    assert bool(answer) is filter.matches(payloads[document_id]), (payloads[document_id], filter)


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
