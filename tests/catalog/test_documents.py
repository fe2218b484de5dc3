"""Documents, the features they share, and the running totals."""

import random
from types import SimpleNamespace
from typing import cast

import pytest

from mixpeek_dagster.catalog import Catalog
from mixpeek_dagster.errors import NotFound
from mixpeek_dagster.models.collections import Collection
from mixpeek_dagster.models.documents import DocumentState
from mixpeek_dagster.models.ids import CollectionId
from mixpeek_dagster.models.namespaces import Namespace
from mixpeek_dagster.models.objects import ObjectStatus
from mixpeek_dagster.pipeline.removal import remove_objects
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.testing import FakeIndex
from mixpeek_dagster.vectors.embedded import EmbeddedIndex
from tests.catalog.worlds import collection, document, feature
from tests.pipeline.worlds import NOW, assert_totals, make_bucket, stored_object

LATER = "2026-11-23T00:00:00.000000Z"


@pytest.fixture
def made(catalog: Catalog, namespace: Namespace) -> Collection:
    with catalog.transaction() as records:
        return collection(records, namespace, make_bucket(records, namespace))


def test_writing_a_document_again_replaces_it_and_counts_it_once(catalog: Catalog, made: Collection) -> None:
    one = document(made, "doc_1", payload={"a": 1})
    with catalog.transaction() as records:
        assert records.documents.put(made.collection_id, [one, document(made, "doc_2")]) == 2
        again = one.model_copy(update={"payload": {"a": "ü\n"}, "revision": 2, "created_at": LATER, "updated_at": LATER})
        assert records.documents.put(made.collection_id, [again, document(made, "doc_3")]) == 1
    with catalog.reading() as records:
        found = records.documents.named(["doc_1", "doc_2", "doc_3", "doc_4"])
        assert found["doc_1"] == again.model_copy(update={"created_at": NOW}), "all but the time of its making is new"
        assert set(found) == {"doc_1", "doc_2", "doc_3"}
        assert records.documents.stamp(made.collection_id) == (0, 4)
    assert_totals(catalog)


def test_of_two_writes_of_one_document_the_last_counts(catalog: Catalog, made: Collection) -> None:
    pair = [document(made, "doc_1", revision=1), document(made, "doc_1", revision=2)]
    with catalog.transaction() as records:
        assert records.documents.put(made.collection_id, pair) == 1
        assert records.documents.named(["doc_1"])["doc_1"].revision == 2
        assert records.documents.put(made.collection_id, []) == 0
    assert_totals(catalog)


def test_a_collection_that_is_gone_takes_no_documents(catalog: Catalog, made: Collection) -> None:
    with catalog.transaction() as records:
        records.collections.remove(made.collection_id)
        with pytest.raises(NotFound, match="was deleted while"):
            records.documents.put(made.collection_id, [document(made, "doc_1")])


def test_stale_documents_are_older_revisions_and_surplus_units(catalog: Catalog, made: Collection) -> None:
    def unit(name: str, identity: str, position: int, revision: int, *, source: str = "obj") -> None:
        with catalog.transaction() as records:
            values = {"identity": identity, "position": position, "revision": revision, "root_object_id": source}
            records.documents.put(made.collection_id, [document(made, name, **values)])

    unit("kept", "obj", 0, 2)
    unit("surplus", "obj", 1, 1)
    unit("older", "obj:old batch", 0, 1)
    unit("other batch", "obj:other batch", 0, 2)
    unit("other object", "x", 9, 1, source="x")
    sources = [("obj", 2, "obj", 1)]
    with catalog.reading() as records:

        def stale(*, replace: bool) -> list[str]:
            return sorted(records.documents.stale(made.collection_id, sources, by="root_object_id", replace=replace))

        assert stale(replace=False) == ["older", "surplus"]
        assert stale(replace=True) == ["older", "other batch", "surplus"]


def test_removing_takes_everything_made_from_a_document_along(catalog: Catalog, namespace: Namespace, made: Collection) -> None:
    with catalog.transaction() as records:
        above = collection(records, namespace, make_bucket(records, namespace))
        records.documents.put(made.collection_id, [document(made, "a"), document(made, "b")])
        tier1 = [document(above, f"a.{n}", source_document_id="a") for n in range(2)]
        tier2 = [document(above, "a.0.0", source_document_id="a.0"), document(above, "b.0", source_document_id="b")]
        records.documents.put(above.collection_id, [*tier1, *tier2])
        doomed = records.documents.with_descendants(["a", "a.0", "gone"])
        assert {key: sorted(ids) for key, ids in doomed.items()} == {
            made.collection_id: ["a"],
            above.collection_id: ["a.0", "a.0.0", "a.1"],
        }
        assert records.documents.remove(doomed) == 4
        assert records.documents.stamp(made.collection_id) == (1, 2)
        assert [one.document_id for one in records.documents.scan(above.collection_id)] == ["b.0"]
    assert_totals(catalog)


def test_retired_documents_are_hidden_until_they_are_removed(catalog: Catalog, made: Collection) -> None:
    with catalog.transaction() as records:
        records.documents.put(made.collection_id, [document(made, "a", root_object_id="o"), document(made, "b")])
        records.documents.retire({made.collection_id: ["a"]}, now=LATER)
        assert set(records.documents.named(["a", "b"])) == {"b"}
        assert list(records.documents.ids(made.collection_id)) == ["b"]
        assert records.documents.of_objects(["o"]) == []
        assert len(records.documents.scan(made.collection_id)) == 1
        waiting = records.documents.not_indexed(made.collection_id, before="~", limit=10, state=DocumentState.DELETING)
        assert [one.document_id for one in waiting] == ["a"]
        records.documents.put(made.collection_id, [document(made, "a")])
        assert records.documents.remove({made.collection_id: ["a", "b"]}, only_retired=True) == 0
    assert_totals(catalog)


def test_only_the_write_that_reached_the_index_is_marked(catalog: Catalog, made: Collection) -> None:
    with catalog.transaction() as records:
        pending = [document(made, name, state=DocumentState.PENDING, memo_key="new") for name in ("a", "b")]
        records.documents.put(made.collection_id, pending)
        records.documents.mark_indexed([("a", "new"), ("b", "old")])
        assert {name: one.state for name, one in records.documents.named(["a", "b"]).items()} == {
            "a": DocumentState.INDEXED,
            "b": DocumentState.PENDING,
        }


def test_features_are_found_again_with_their_vectors(catalog: Catalog, made: Collection) -> None:
    units = [feature("m", 1, value=2.0), feature("m", 0, value=1.0)]
    with catalog.transaction() as records:
        records.documents.add_features(units, now=NOW)
        records.documents.add_features(units, now=NOW)
        found = records.documents.features(["m", "unknown"])
        assert [(one.position, one.fields) for one in found["m"]] == [(0, {"n": 0}), (1, {"n": 1})]
        assert set(found) == {"m"}
        one = document(made, "doc_1", memo_key="m", position=1)
        records.documents.put(made.collection_id, [one, document(made, "doc_2", memo_key="none")])
        assert records.documents.vectors_of([one]) == {"doc_1": units[0].vectors}
        rows = sorted(records.documents.vectors(made.collection_id, "out", after_seq=0))
        assert rows == [(1, "doc_1", units[0].vectors["out"]), (2, "doc_2", None)]
        assert list(records.documents.vectors(made.collection_id, "out", after_seq=2)) == []


def test_features_that_shrank_leave_no_surplus_units(catalog: Catalog) -> None:
    with catalog.transaction() as records:
        records.documents.add_features([feature("m", 0), feature("m", 1)], now=NOW)
        records.documents.add_features([feature("m", 0)], now=NOW)
        assert len(records.documents.features(["m"])["m"]) == 1


def test_features_nobody_uses_go_after_a_while(catalog: Catalog, made: Collection) -> None:
    with catalog.transaction() as records:
        records.documents.add_features([feature(name) for name in ("used", "unused")], now=NOW)
        records.documents.add_features([feature("fresh")], now=LATER)
        records.documents.put(made.collection_id, [document(made, "doc_1", memo_key="used")])
        assert records.documents.remove_unused_features(before=LATER) == 1
        assert set(records.documents.features(["used", "unused", "fresh"])) == {"used", "fresh"}
        assert records.connection.exec_driver_sql("SELECT count(*) FROM vectors").scalar_one() == 2
        assert records.documents.remove_unused_features(before="2026-11-24", limit=10) == 1


def test_lists_longer_than_a_statement_may_be_are_cut(catalog: Catalog, made: Collection) -> None:
    names = [f"doc_{number:05d}" for number in range(1203)]
    with catalog.transaction() as records:
        records.documents.put(made.collection_id, [document(made, name) for name in names])
        assert len(records.documents.named(names)) == 1203
        assert records.documents.remove({made.collection_id: names[3:]}) == 1200
    assert_totals(catalog)


@pytest.mark.parametrize("seed", range(8))
def test_totals_stay_true_whatever_happens(catalog: Catalog, namespace: Namespace, seed: int) -> None:
    chance = random.Random(seed)
    with catalog.transaction() as records:
        buckets = [make_bucket(records, namespace) for _ in range(2)]
        made = [collection(records, namespace, buckets[0]) for _ in range(2)]
    index = FakeIndex() if seed % 2 else EmbeddedIndex.__new__(EmbeddedIndex)
    warehouse = cast(Warehouse, SimpleNamespace(index=index))  # all that removing asks of it
    objects: list[str] = []
    for turn in range(60):
        kind = chance.choice(["add", "put", "document", "upsert", "remove object", "remove document", "roll back"])
        try:
            with catalog.transaction() as records:
                if kind in ("add", "roll back"):
                    bucket = chance.choice(buckets)
                    stored = stored_object(bucket, f"obj_{seed}_{turn}", "x" * chance.randrange(50))
                    records.objects.add([stored])
                    records.buckets.count(bucket.bucket_id, objects=1, size_bytes=stored.size_bytes)
                    if kind == "roll back":
                        raise InterruptedError
                    objects.append(stored.object_id)
                elif kind == "put" and objects:
                    records.objects.set_status([chance.choice(objects)], ObjectStatus.COMPLETED, now=NOW)
                elif kind in ("document", "upsert"):
                    which = chance.choice(made)
                    values = {"root_object_id": chance.choice(objects) if objects else None}
                    names = {f"doc_{made.index(which)}_{chance.randrange(30)}" for _ in range(5)}
                    records.documents.put(which.collection_id, [document(which, name, **values) for name in names])
                elif kind == "remove object" and objects:
                    doomed = [objects.pop(chance.randrange(len(objects))), "obj_gone"]
                    remove_objects(records, warehouse, doomed, now=NOW)
                elif kind == "remove document":
                    which = chance.choice(made)
                    name = f"doc_{made.index(which)}_{chance.randrange(30)}"
                    records.documents.remove({CollectionId(which.collection_id): [name]})
        except InterruptedError:
            pass
    assert_totals(catalog)
    with catalog.reading() as records:
        counts = records.namespaces.counts(namespace.namespace_id)
        documents = sum(one.document_count for one in records.collections.all())
    assert counts == {
        "bucket_count": 2,
        "object_count": len(objects),
        "collection_count": 2,
        "document_count": documents,
    }
