"""Asking the warehouse: the nearest documents, and where one comes from."""

import pytest

from mixpeek_dagster.errors import Invalid, NotFound
from mixpeek_dagster.models.ids import NamespaceId
from mixpeek_dagster.pipeline.lineage import explain
from mixpeek_dagster.pipeline.search import search
from tests.pipeline.worlds import Library


@pytest.fixture
def filled(library: Library) -> Library:
    for name in ("a.txt", "b.txt", "c.txt"):
        library.world.put(f"folder/{name}", name.encode())
    library.cycle()
    return library


def paths(library: Library, query: str, **more: object) -> list[tuple[str, float]]:
    found = search(library.warehouse, query, namespace_id=library.namespace.namespace_id, **more)  # type: ignore[arg-type]
    objects = {stored.object_id: path for path, stored in library.objects().items()}
    return [(objects[str(one.document.root_object_id)], round(one.score, 3)) for one in found]


def test_the_nearest_document_comes_first(filled: Library) -> None:
    first, *rest = paths(filled, "b.txt")
    assert first == ("folder/b.txt", 1.0)
    scores = [score for _, score in rest]
    assert scores == sorted(scores, reverse=True)
    assert len(paths(filled, "b.txt", top_k=2)) == 2


def test_one_collection_or_one_kind_of_vector_may_be_asked(filled: Library) -> None:
    filled.collection("second", {"type": "bucket", "bucket_ids": [filled.bucket.bucket_id]})
    uri = filled.passages.vectors[0].feature_uri
    assert uri == "mixpeek://stub_extractor@v1/embedding"
    for more in ({"collections": ["passages"]}, {"feature_uri": uri}, {"feature_uri": filled.passages.vectors[0].index_name}):
        assert paths(filled, "c.txt", **more)[0] == ("folder/c.txt", 1.0)
    assert paths(filled, "c.txt", collections=["second"]) == []


def test_what_cannot_be_compared_is_said_with_what_can(filled: Library) -> None:
    with pytest.raises(Invalid, match=r"has a vector that image can be compared with\. They have: mixpeek://stub_extractor@v1"):
        search(filled.warehouse, b"png", namespace_id=filled.namespace.namespace_id)
    with pytest.raises(Invalid, match="has mixpeek://other"):
        paths(filled, "x", feature_uri="mixpeek://other@v1/embedding")
    with pytest.raises(NotFound):
        paths(filled, "x", collections=["nowhere"])
    with pytest.raises(Invalid, match="None of the 0 collections"):
        search(filled.warehouse, "x", namespace_id=NamespaceId("ns_other"))


def test_what_was_deleted_is_not_found(filled: Library) -> None:
    assert len(paths(filled, "b.txt")) == 3
    filled.world.delete("folder/b.txt")
    filled.cycle()
    assert "folder/b.txt" not in dict(paths(filled, "b.txt"))
    filled.world.put("folder/c.txt", b"b.txt")
    filled.cycle()
    assert paths(filled, "b.txt")[0] == ("folder/c.txt", 1.0)


def test_a_document_is_explained_back_to_its_file(filled: Library) -> None:
    above = filled.above("above", filled.passages)
    filled.world.put("folder/new.txt", b"new")
    filled.cycle()
    (document,) = filled.documents(above)
    answer = explain(filled.warehouse, document.document_id).as_json()
    entry = filled.world.files[b"folder/new.txt"][0]
    assert answer["source"] == {
        "place": "mixpeek_dagster.testing:FakeSource: fake://default/",
        "file": "folder/new.txt",
        "revision": {"etag": entry.etag, "version": "", "size_bytes": 3},
    }
    assert [link["collection"] for link in answer["chain"]] == ["passages", "above"]
    assert answer["chain"][1]["document_id"] == document.document_id
    assert {link["batch_id"] for link in answer["chain"]} == {filled.batches()[-1].batch_id}
    assert {link["extractor"] for link in answer["chain"]} == {"stub_extractor@v1"}
    assert answer["object"] == {"object_id": document.root_object_id, "revision": 1}
    assert answer["vectors"] == {"stub_extractor_v1_embedding": "384-d, 1536 bytes"}


def test_a_document_that_does_not_exist_is_not_explained(filled: Library) -> None:
    with pytest.raises(NotFound, match="doc_none"):
        explain(filled.warehouse, "doc_none")
    with pytest.raises(NotFound):
        explain(filled.warehouse, filled.documents()[0].document_id, namespace_id=NamespaceId("ns_other"))


def test_a_document_outlives_the_sync_it_came_from(filled: Library) -> None:
    with filled.warehouse.catalog.transaction() as records:
        records.syncs.remove(filled.sync.sync_id)
    answer = explain(filled.warehouse, filled.documents()[0].document_id).as_json()
    assert answer["source"]["place"] is None
    assert answer["source"]["file"].startswith("folder/")
