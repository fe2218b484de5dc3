"""Declared payload indexes are indexes of the database, and lists use them."""

import re

from sqlalchemy import text

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.catalog.listing import Scope
from mixpeek_dagster.catalog.payload_indexes import ensure_payload_indexes
from mixpeek_dagster.models.filters import Filter
from mixpeek_dagster.models.namespaces import PayloadIndex
from tests.pipeline.shelves import Shelves, shelves

__all__ = ["shelves"]

DECLARED = [
    PayloadIndex(field_name="status", type="keyword"),
    PayloadIndex(field_name="deep.price", type="float"),
    PayloadIndex(field_name="it's:%s", type="datetime"),
    PayloadIndex(field_name="place", type="geo"),
]


def indexes(records: Records) -> set[str]:
    sqlite = records.connection.dialect.name == "sqlite"
    query = "SELECT name FROM sqlite_master WHERE type = 'index'" if sqlite else "SELECT indexname FROM pg_indexes"
    return {row[0] for row in records.connection.execute(text(query)) if row[0].startswith("payload_")}


def plan(records: Records, scope: Scope) -> str:
    listing = records.listing
    if records.connection.dialect.name != "sqlite":
        records.connection.execute(text("SET LOCAL enable_seqscan = off"))
        records.connection.execute(text("SET LOCAL enable_indexscan = on"))
        records.connection.execute(text("ANALYZE documents"))
    from sqlalchemy import select

    from mixpeek_dagster.catalog.tables import documents

    dialect = records.connection.dialect
    query = (
        select(documents.c.document_id)
        .where(listing.where(scope))
        .compile(dialect=dialect, compile_kwargs={"literal_binds": True})
    )
    explain = "EXPLAIN QUERY PLAN " if dialect.name == "sqlite" else "EXPLAIN "
    cursor = records.connection.connection.cursor()
    cursor.execute(explain + str(query).replace("%%", "%"))
    return "\n".join(" ".join(map(str, row)) for row in cursor.fetchall())


def test_indexes_come_and_go_with_their_declaration(shelves: Shelves) -> None:
    namespace_id = shelves.namespace.namespace_id
    shelves.put(shelves.articles, [{"status": "x" * 10_000, "deep": {"price": 1}, "it's:%s": ["2026-01-01"]}])
    with shelves.warehouse.catalog.transaction() as records:
        ensure_payload_indexes(records.connection, namespace_id, DECLARED)
        made = indexes(records)
        assert len(made) == 4
        ensure_payload_indexes(records.connection, namespace_id, DECLARED)
        ensure_payload_indexes(records.connection, "ns_other", DECLARED[:1])
        assert len(indexes(records)) == 6
        ensure_payload_indexes(records.connection, namespace_id, DECLARED[:1])
        assert len(indexes(records)) == 4
        ensure_payload_indexes(records.connection, namespace_id, [])
        ensure_payload_indexes(records.connection, "ns_other", [])
        assert indexes(records) == set()
    assert shelves.titles() == [None]


def test_a_filter_on_a_declared_field_uses_its_index(shelves: Shelves) -> None:
    namespace_id = shelves.namespace.namespace_id
    shelves.put(shelves.articles, [{"status": f"s{n}", "deep": {"price": n}} for n in range(59)])
    with shelves.warehouse.catalog.transaction() as records:
        ensure_payload_indexes(records.connection, namespace_id, DECLARED)
        ids = [shelves.articles.collection_id]
        for wire in ({"field": "status", "value": "S7"}, {"field": "deep.price", "operator": "gt", "value": 57}):
            scope = Scope(namespace_id=namespace_id, collection_ids=ids, filter=Filter.parse(wire))
            found = plan(records, scope)
            assert re.search(r"payload_\w+ \(collection_id=\? AND <expr>|(?s:payload_.*Index Cond)", found), found
        ensure_payload_indexes(records.connection, namespace_id, [])
