"""What routes ask of objects, batches and retrievers, on both databases."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event

from mixpeek_dagster.catalog import Catalog
from mixpeek_dagster.catalog.syncs import KeyState, SyncRecords
from mixpeek_dagster.errors import AlreadyExists, NotFound
from mixpeek_dagster.models.batches import BatchStatus
from mixpeek_dagster.models.buckets import Bucket
from mixpeek_dagster.models.collections import Collection
from mixpeek_dagster.models.filters import Filter
from mixpeek_dagster.models.ids import SyncId
from mixpeek_dagster.models.namespaces import Namespace
from mixpeek_dagster.models.objects import ObjectStatus
from mixpeek_dagster.models.retrievers import Retriever
from mixpeek_dagster.pipeline.batches import create_batch
from tests.catalog.worlds import collection, document
from tests.pipeline.worlds import NOW, make_bucket, stored_object

LATER = "2026-11-23T00:00:00.000000Z"


@pytest.fixture
def bucket(catalog: Catalog, namespace: Namespace) -> Bucket:
    """Objects a and b of price 1 and 3, c of price 5 without a kind."""
    with catalog.transaction() as records:
        made = make_bucket(records, namespace)
        rows: list[tuple[str, dict[str, Any]]] = [
            ("obj_a", {"kind": "x", "price": 1}),
            ("obj_b", {"kind": "x", "price": 3}),
            ("obj_c", {"price": 5}),
        ]
        records.objects.add([stored_object(made, name, fields=fields) for name, fields in rows])
    return made


@pytest.fixture
def made(catalog: Catalog, namespace: Namespace, bucket: Bucket) -> Collection:
    """A collection over the bucket, with two documents of object a."""
    with catalog.transaction() as records:
        own = collection(records, namespace, bucket)
        records.documents.put(own.collection_id, [document(own, name, root_object_id="obj_a") for name in ("doc_1", "doc_2")])
    return own


def test_objects_are_aggregated_by_fields_and_by_columns(catalog: Catalog, bucket: Bucket) -> None:
    measures = [("sum", "price"), ("count", None), ("max", "kind")]
    with catalog.reading() as records:
        rows = records.objects.aggregates(bucket.bucket_id, Filter(), ["kind"], measures)
        assert {row[0]: (float(row[1]), row[2], row[3]) for row in rows} == {"x": (4.0, 2, "x"), None: (5.0, 1, None)}
        few = Filter.parse({"field": "price", "operator": "gte", "value": 3})
        assert [row[1] for row in records.objects.aggregates(bucket.bucket_id, few, ["status"], [("count", None)])] == [2]


def test_disabled_objects_match_no_filter_and_are_forgotten_with_the_object(catalog: Catalog, bucket: Bucket) -> None:
    with catalog.transaction() as records:
        records.objects.disable(["obj_a", "obj_b"], state="disabled", reason="r", source="s", now=NOW)
        records.objects.disable(["obj_a"], state="archived", reason="r", source="s", now=LATER)
        assert records.objects.disabled(["obj_a", "obj_b", "obj_c"]) == {"obj_a": "archived", "obj_b": "disabled"}
        assert records.objects.matching(bucket.bucket_id, Filter()) == ["obj_c"]
        records.objects.enable(["obj_b"])
        assert records.objects.matching(bucket.bucket_id, Filter()) == ["obj_b", "obj_c"]
        records.objects.remove(["obj_a"])
        assert records.objects.disabled(["obj_a"]) == {}


def test_objects_without_documents_are_found_over_buckets_and_over_collections(
    catalog: Catalog, namespace: Namespace, bucket: Bucket, made: Collection
) -> None:
    with catalog.transaction() as records:
        above = collection(records, namespace, bucket)
        missing, total = records.objects.without_documents(made.collection_id, bucket_ids=[bucket.bucket_id], above=[], limit=1)
        assert ([one.object_id for one in missing], total) == (["obj_b"], 3)
        missing, total = records.objects.without_documents(
            above.collection_id, bucket_ids=[], above=[made.collection_id], limit=9
        )
        assert ([one.object_id for one in missing], total) == (["obj_a"], 1)
        assert records.documents.roots([made.collection_id, above.collection_id]) == 1


def test_a_batch_tells_what_is_done_already_and_where_it_is_in_the_queue(
    catalog: Catalog, namespace: Namespace, bucket: Bucket, made: Collection
) -> None:
    with catalog.transaction() as records:
        batches = [
            create_batch(records, ["obj_a", "obj_b"], namespace_id=namespace.namespace_id, bucket_id=bucket.bucket_id, now=NOW)
            for _ in range(2)
        ]
        assert records.batches.extracted(batches[0], [made.collection_id]) == (1, 2)
        assert records.batches.extracted(batches[0], []) == (0, 0)
        queued = [
            records.batches.move(one, BatchStatus.QUEUED, now=NOW, submitted_at=at) for one, at in zip(batches, (NOW, LATER))
        ]
        assert [records.batches.queue_position(one) for one in queued] == [1, 2]
        records.batches.move(queued[0], BatchStatus.COMPLETED, now=LATER, documents_written=7)
        assert records.batches.queue_position(queued[1]) == 1
        done = {"batches_completed": 1, "objects_processed": 2, "documents_written": 7}
        assert records.batches.done_between(NOW, LATER) == done
        assert set(records.batches.done_between(NOW, NOW).values()) == {0}
        assert records.batches.failure_types(batches[0].batch_id) == {}
        assert records.objects.count(bucket.bucket_id, status=ObjectStatus.PENDING) == 3


def test_retrievers_have_names_of_their_own_in_each_namespace(catalog: Catalog, namespace: Namespace) -> None:
    body: dict[str, Any] = {"retriever_name": "mine", "stages": [{"config": {"stage_id": "sort_relevance"}}]}
    times = {"created_at": NOW, "updated_at": NOW}
    one = Retriever.model_validate({**body, **times, "retriever_id": "ret_1", "namespace_id": namespace.namespace_id})
    with catalog.transaction() as records:
        records.retrievers.add(one)
        found = records.retrievers.get("mine", namespace_id=namespace.namespace_id)
        assert found.model_dump(mode="json") == one.model_dump(mode="json")
        with pytest.raises(AlreadyExists):
            records.retrievers.add(one.model_copy(update={"retriever_id": "ret_2"}))
        records.retrievers.put(one.model_copy(update={"description": "d"}))
        assert records.retrievers.all(namespace.namespace_id)[0].description == "d"
        records.namespaces.remove(namespace.namespace_id)
        with pytest.raises(NotFound):
            records.retrievers.get("ret_1", namespace_id=namespace.namespace_id)


def _dead_letters(syncs: SyncRecords) -> None:
    syncs.dead_letters(SyncId("sync_a"), [KeyState.REJECTED, KeyState.ARCHIVED], limit=0)


def _doomed(syncs: SyncRecords) -> None:
    syncs.doomed(SyncId("sync_a"), [KeyState.MISSING], limit=500, after=b"f")


def _prune_jobs(syncs: SyncRecords) -> None:
    syncs.prune_jobs(before="2026", limit=500)


@pytest.mark.parametrize(
    ("ask", "index"),
    [
        (_dead_letters, "SEARCH source_keys USING INDEX faulty_source_keys"),
        (_doomed, "SEARCH source_keys USING INDEX doomed_source_keys"),
        (_prune_jobs, "SEARCH sync_jobs USING INDEX sync_jobs_by_sync (sync_id=? AND started_at<?)"),
    ],
)
def test_finding_a_few_rows_does_not_read_every_row(catalog: Catalog, ask: Callable[[SyncRecords], None], index: str) -> None:
    if catalog.engine.dialect.name != "sqlite":
        pytest.skip("Postgres plans by what the table holds")
    asked: list[tuple[str, Any]] = []
    event.listen(catalog.engine, "before_cursor_execute", lambda *args: asked.append((args[2], args[3])))
    with catalog.transaction() as records:
        ask(records.syncs)
    ((statement, parameters),) = [one for one in asked if one[0].startswith(("SELECT", "DELETE"))]
    with catalog.engine.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    assert any(row[3].startswith(index) for row in plan), plan
