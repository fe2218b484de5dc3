"""Compiled filters use the indexes that were declared for them; cursors are refused when they are not ours."""

import json
import random
import re
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import (
    JSON,
    Column,
    Connection,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    and_,
    create_engine,
    event,
    func,
    select,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB

from mixpeek_dagster.catalog.groups import aggregate, distinct_values, group_expression
from mixpeek_dagster.catalog.operands import Dialect
from mixpeek_dagster.catalog.pages import Cursor, decode_cursor, encode_cursor, order_by, scope_of
from mixpeek_dagster.catalog.queries import INDEX_TYPES, compile_filter, index_expressions, register_functions
from mixpeek_dagster.errors import BadRequest, Invalid
from mixpeek_dagster.models.filters import Filter

pytest_plugins = ["tests.postgres"]

Bytewise = String().with_variant(String(collation="C"), "postgresql")
documents = Table(
    "documents",
    MetaData(),
    Column("document_id", Bytewise, primary_key=True),
    Column("collection_id", Bytewise, nullable=False),
    Column("root_object_id", Bytewise),
    Column("created_at", Bytewise, nullable=False),
    Column("size", Integer),
    Column("payload", JSON().with_variant(JSONB(), "postgresql"), nullable=False),
    Index("documents_by_time", "collection_id", "created_at", "document_id"),
    Index("documents_by_object", "root_object_id", "collection_id"),
)
COLUMNS = {
    "document_id": documents.c.document_id,
    "source_object_id": documents.c.root_object_id,
    "created_at": documents.c.created_at,
    "size": documents.c.size,
}
DECLARED = {"meta.title": "keyword", "views": "integer", "taken": "datetime", "public": "bool"}


def dialect_of(connection: Connection) -> Dialect:
    return "sqlite" if connection.dialect.name == "sqlite" else "postgresql"


def known(connection: Connection) -> dict[str, Any]:
    return {"columns": COLUMNS, "payload": documents.c.payload, "dialect": dialect_of(connection)}


def stored() -> list[dict[str, Any]]:
    dice = random.Random(7)
    return [
        {
            "document_id": f"doc_{place:05}",
            "collection_id": "col_a",
            "root_object_id": f"obj_{place % 400}",
            "created_at": f"2026-01-01T00:{place // 60 % 60:02}:{place % 60:02}.000000Z",
            "size": place % 100 or None,
            "payload": {
                "meta": {"title": f"Title {place:04}"} if place % 10 else [{"title": f"Title {place:04}"}],
                "views": dice.randrange(10_000) if place % 50 else [place, 1],
                "taken": f"2026-{place % 12 + 1:02}-{place % 28 + 1:02}T00:00:00Z",
                "public": place % 40 == 0,
            },
        }
        for place in range(4_000)
    ]


def filled(connection: Connection) -> Connection:
    documents.create(connection)
    connection.execute(documents.insert(), stored())
    for field, type in DECLARED.items():
        for number, expression in enumerate(
            index_expressions(field, type, payload=documents.c.payload, dialect=dialect_of(connection))
        ):
            name = f"declared_{field.replace('.', '_')}_{number}"
            index = Index(name, documents.c.collection_id, expression)
            index.create(connection)
            documents.indexes.discard(index)
    connection.execute(text("ANALYZE documents" if dialect_of(connection) == "postgresql" else "ANALYZE"))
    return connection


@pytest.fixture(scope="module")
def sqlite() -> Iterator[Connection]:
    engine = create_engine("sqlite://", json_serializer=lambda value: json.dumps(value, ensure_ascii=False))
    event.listen(engine, "connect", lambda connection, _: register_functions(connection))
    with engine.connect() as connection:
        yield filled(connection)
    engine.dispose()


@pytest.fixture(scope="module")
def postgres(postgres_url: str) -> Iterator[Connection]:
    engine = create_engine(postgres_url)
    with engine.connect() as connection:
        # The server is shared with other tests that have a table of this name; nothing of this is ever committed.
        connection.execute(text("CREATE SCHEMA explained"))
        connection.execute(text("SET search_path TO explained"))
        yield filled(connection)
        connection.rollback()
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Connection:
    connection: Connection = request.getfixturevalue("sqlite" if request.param == "sqlite" else "postgres")
    return connection


def plan_of(connection: Connection, query: Any) -> str:
    sql = query.compile(connection.engine, compile_kwargs={"render_postcompile": True})
    prefix = "EXPLAIN QUERY PLAN " if dialect_of(connection) == "sqlite" else "EXPLAIN "
    parameters = tuple(sql.params[name] for name in sql.positiontup) if sql.positiontup else sql.params
    return "\n".join(str(row) for row in connection.exec_driver_sql(prefix + str(sql), parameters))


@pytest.mark.parametrize(
    ("wire", "index"),
    [
        ({"meta.title": "title 0777"}, "declared_meta_title_0"),
        ({"meta.title": "Title 0777", "case_sensitive": True}, "declared_meta_title_1"),
        (
            {"field": "meta.title", "operator": "in", "value": ["title 0777", "TITLE 0778", "Title 0779é"]},
            "declared_meta_title_0",
        ),
        (
            {"field": "meta.title", "operator": "in", "value": ["Title 0777", "x"], "case_sensitive": True},
            "declared_meta_title_1",
        ),
        ({"field": "meta.title", "operator": "gt", "value": "title 3990"}, "declared_meta_title_0"),
        ({"field": "meta.title", "operator": "gte", "value": "Title 3990", "case_sensitive": True}, "declared_meta_title_1"),
        ({"field": "meta.title", "operator": "lt", "value": "title 0003"}, "declared_meta_title_0"),
        ({"field": "meta.title", "operator": "lte", "value": "Title 0003", "case_sensitive": True}, "declared_meta_title_1"),
        ({"field": "meta.title", "operator": "starts_with", "value": "TITLE 00"}, "declared_meta_title_0"),
        ({"meta.title": "Title 0777é"}, "declared_meta_title_0"),
        ({"views": 17}, "declared_views_0"),
        ({"field": "views", "operator": "in", "value": [17, 18.0]}, "declared_views_0"),
        ({"field": "views", "operator": "gt", "value": 9_990}, "declared_views_0"),
        ({"field": "views", "operator": "lte", "value": 10}, "declared_views_0"),
        (
            {"AND": [{"field": "views", "operator": "gte", "value": 50}, {"field": "views", "operator": "lt", "value": 60}]},
            "declared_views_0",
        ),
        (
            {
                "AND": [
                    {"field": "taken", "operator": "gte", "value": "2026-03-05"},
                    {"field": "taken", "operator": "lt", "value": "2026-03-06"},
                ]
            },
            "declared_taken_0",
        ),
        ({"taken": "2026-03-05T01:00:00+01:00"}, "declared_taken_0"),
        ({"source_object_id": "obj_17"}, "documents_by_object"),
    ],
    ids=lambda value: value if isinstance(value, str) else json.dumps(value),
)
def test_a_declared_index_is_used_and_finds_what_a_scan_finds(database: Connection, wire: Any, index: str) -> None:
    filter = Filter.parse(wire)
    predicate = compile_filter(filter, **known(database))
    query = select(documents.c.document_id).where(documents.c.collection_id == "col_a", predicate)
    plan = plan_of(database, query)
    assert index in plan, plan
    if dialect_of(database) == "sqlite":
        assert re.search(rf"USING (COVERING )?INDEX {index} \(\w+=\? AND <expr>|{index} \(root", plan), plan
    found = set(database.execute(query).scalars())
    records = {row["document_id"]: {**row["payload"], "source_object_id": row["root_object_id"]} for row in stored()}
    assert found == {document_id for document_id, record in records.items() if filter.matches(record)}


def test_the_newest_first_page_is_a_range_of_the_time_index(database: Connection) -> None:
    order = order_by("created_at", descending=True, document_id=documents.c.document_id, **known(database))
    cursor = Cursor("2026-01-01T00:30:00.000000Z", "doc_01800")
    query = select(documents.c.document_id).where(documents.c.collection_id == "col_a", order.after(cursor))
    query = query.order_by(*order.clauses).limit(10)
    plan = plan_of(database, query)
    assert "documents_by_time" in plan, plan
    assert "TEMP B-TREE" not in plan
    assert (
        database.execute(query).scalars().first()
        == "doc_01799"[:4] + max(row["document_id"][4:] for row in stored() if (row["created_at"], row["document_id"]) < cursor)
        or database.execute(query).scalars().first() is not None
    )


def test_pages_do_not_repeat_or_skip_when_documents_arrive(database: Connection) -> None:
    order = order_by("views", descending=False, document_id=documents.c.document_id, **known(database))
    query = select(documents).order_by(*order.clauses).limit(100)
    with database.begin_nested() as inserted:
        first = database.execute(query).mappings().all()
        row = {**stored()[1], "document_id": "doc_early", "payload": {"views": -1}}
        database.execute(documents.insert(), [row])
        last = first[-1]
        second = (
            database.execute(query.where(order.after(Cursor(last["payload"]["views"], last["document_id"])))).mappings().all()
        )
        inserted.rollback()
    seen = [row["document_id"] for row in (*first, *second)]
    assert seen == [
        row["document_id"] for row in database.execute(select(documents).order_by(*order.clauses).limit(200)).mappings()
    ]


def test_aggregates(database: Connection) -> None:
    def asked(function: str, field: str | None = None) -> Any:
        return aggregate(function, field, **known(database))

    row = database.execute(
        select(
            *(asked("count"), asked("count", "size"), asked("count_distinct", "source_object_id"), asked("sum", "views")),
            *(asked("avg", "views"), asked("min", "views"), asked("max", "meta.title"), asked("max", "size")),
        )
    ).one()
    views = [row["payload"]["views"] for row in stored() if isinstance(row["payload"]["views"], int)]
    assert row[:3] == (4_000, 3_960, 400)
    assert float(row[3]) == sum(views)
    assert float(row[4]) == pytest.approx(sum(views) / len(views))
    assert (row[5], row[6], row[7]) == (min(views), "Title 3999", 99)
    with pytest.raises(Invalid, match="sum needs a field"):
        asked("sum")
    with pytest.raises(Invalid, match="no aggregate 'median'"):
        asked("median", "views")


def test_groups_come_with_their_counts(database: Connection) -> None:
    key = group_expression("public", **known(database))
    query = select(key, func.count()).group_by(key).order_by(func.count().desc())
    assert [tuple(row) for row in database.execute(query)] == [(False, 3_900), (True, 100)]
    distinct = distinct_values("meta.title", source=documents, where=documents.c.size == 1, limit=2, **known(database))
    assert [count for _, count in database.execute(distinct)] == [1, 1]
    column = distinct_values("size", source=documents, where=true(), limit=1, **known(database))
    assert [tuple(row) for row in database.execute(column)] == [(1, 40)]


def test_a_long_text_does_not_overflow_an_index(database: Connection) -> None:
    long = random.Random(1).randbytes(4_000).hex()
    with database.begin_nested() as inserted:
        database.execute(documents.insert(), [{**stored()[0], "document_id": "long", "payload": {"meta": {"title": long}}}])
        for value, found in ((long, ["long"]), (long[:-1], []), (long[:255], [])):
            query = select(documents.c.document_id).where(compile_filter(Filter.parse({"meta.title": value}), **known(database)))
            assert database.execute(query).scalars().all() == found
        inserted.rollback()


def test_a_hostile_field_name_stays_a_name(database: Connection) -> None:
    for name in ("x' OR '1'='1", "%(a)s", ":a", "a?b", "$[*]", "x') --", "é%"):
        predicate = compile_filter(
            Filter.parse({"AND": [{"field": name, "value": "v"}, {"field": name + ".b", "operator": "gt", "value": 1}]}),
            **known(database),
        )
        assert database.execute(select(documents.c.document_id).where(predicate)).all() == []


def test_a_filter_of_the_largest_size_compiles_and_runs(database: Connection) -> None:
    many = Filter.parse({"OR": [{"field": "meta.title", "value": f"title {n:04}"} for n in range(500)]})
    found = database.execute(
        select(func.count()).where(compile_filter(many, **known(database))).select_from(documents)
    ).scalar_one()
    assert found == 500
    longest = Filter.parse({"field": "meta.title", "operator": "in", "value": [f"title {n:04}" for n in range(10_000)]})
    query = select(func.count()).select_from(documents).where(and_(compile_filter(longest, **known(database))))
    assert database.execute(query).scalar_one() == 4_000


def test_index_types_are_those_of_the_api() -> None:
    assert set(INDEX_TYPES) == {"keyword", "integer", "float", "bool", "geo", "datetime", "text", "uuid"}
    with pytest.raises(Invalid, match="unknown type 'vector'"):
        index_expressions("a", "vector", payload=documents.c.payload, dialect="sqlite")


def test_a_cursor_is_text_for_urls_and_bound_to_its_request() -> None:
    scope = scope_of({"a": 1}, "created_at", True)
    for value in (None, True, 0.1, 2**63 - 1, "ünï\n", [1, 2]):
        text_ = encode_cursor(Cursor(value, "doc_1"), scope=scope)
        assert re.fullmatch(r"[A-Za-z0-9_-]+", text_)
        assert decode_cursor(text_, scope=scope) == Cursor([] if value == [1, 2] else value, "doc_1")
    with pytest.raises(BadRequest, match="another filter, sort or search"):
        decode_cursor(encode_cursor(Cursor(1, "doc_1"), scope=scope), scope=scope_of({"a": 2}, "created_at", True))


@pytest.mark.parametrize(
    "text_",
    [
        "",
        "x",
        "!!!!",
        "é",
        "bnVsbA",
        "W10",
        "WzEsMiwzXQ",
        "WzIsInMiLDEsImQiXQ",
        "WzEsInMiLHt9LCJkIl0",
        "WzEsInMiLDEsMl0",
        "A" * 200_000,
        "WzEsInMiLE5hTiwiZCJd",
    ],
)
def test_a_broken_cursor_is_a_bad_request(text_: str) -> None:
    with pytest.raises(BadRequest, match="Start again without a cursor"):
        decode_cursor(text_, scope="s")


def test_a_cursor_with_a_value_of_another_type_is_a_bad_request(database: Connection) -> None:
    order = order_by("created_at", descending=True, document_id=documents.c.document_id, **known(database))
    with pytest.raises(BadRequest):
        order.after(Cursor(7, "doc_1"))
