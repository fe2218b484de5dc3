"""Lists of documents: what the seed's request asks for, on both databases."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import event

from mixpeek_dagster.errors import BadRequest, Invalid
from mixpeek_dagster.models.listing import ListRequest
from mixpeek_dagster.pipeline.documents import list_documents
from tests.pipeline.shelves import Shelves, shelves

__all__ = ["shelves"]

SEED_REQUEST: dict[str, Any] = {
    "filters": {
        "AND": [{"field": "name", "operator": "eq", "value": "John"}, {"field": "age", "operator": "gte", "value": 30}],
        "OR": [{"field": "status", "operator": "eq", "value": "active"}, {"field": "role", "operator": "eq", "value": "admin"}],
        "NOT": [
            {"field": "department", "operator": "eq", "value": "HR"},
            {"field": "location", "operator": "eq", "value": "remote"},
        ],
        "case_sensitive": True,
    },
    "sort": {"field": "created_at", "direction": "desc"},
    "search": "john",
    "return_presigned_urls": False,
    "return_vectors": False,
    "return_vector_names": False,
    "select": ["metadata.title", "content"],
    "expand": ["customer_id"],
    "limit": 10,
    "offset": 0,
}


def test_a_page_has_the_shape_of_the_seed(shelves: Shelves) -> None:
    (doc,) = shelves.put(shelves.articles, [{"metadata": {"title": "AI Article"}}])
    answer = shelves.page(select=["metadata.title"])
    assert answer["results"] == [
        {"collection_id": shelves.articles.collection_id, "document_id": doc, "metadata": {"title": "AI Article"}}
    ]
    assert answer["pagination"] == {
        "has_more": False,
        "limit": 10,
        "offset": 0,
        "total_count": 1,
        "total": 1,
        "page": 1,
        "page_size": 10,
        "total_pages": 1,
        "next_page": None,
        "previous_page": None,
        "next_cursor": None,
    }
    assert answer["stats"] == {"avg_blobs_per_document": 0.0, "total_documents": 1}
    assert answer["unknown_collection_ids"] == []
    assert answer["warnings"] == []


def test_the_seeds_filter_means_all_of_and_one_of_or_none_of_not(shelves: Shelves) -> None:
    john = {"name": "John", "age": 31, "status": "active", "content": "x", "metadata": {"title": "t"}}
    shelves.put(
        shelves.articles,
        [john, {**john, "age": 29}, {**john, "status": "gone"}, {**john, "location": "remote"}, {**john, "name": "john"}],
    )
    answer = shelves.page(**SEED_REQUEST)
    assert [one["content"] for one in answer["results"]] == ["x"]
    assert answer["pagination"]["total_count"] == 1
    assert set(answer["results"][0]) == {"document_id", "collection_id", "metadata", "content", "_expanded"}


def test_lineage_is_below_internal_and_its_flat_names_filter_sort_and_group(shelves: Shelves) -> None:
    shelves.put_object("obj_1")
    shelves.put(
        shelves.articles, [{"title": "a"}, {"title": "b"}], root_object_id="obj_1", partition_key="btch_aaaaaaaaaaaa.0001"
    )
    shelves.put(shelves.articles, [{"title": "c"}], root_object_id="obj_2", partition_key="btch_bbbbbbbbbbbb")
    for field in ("source_object_id", "root_object_id", "_internal.lineage.source_object_id"):
        assert shelves.titles(filters={"field": field, "value": "obj_1"}) == ["b", "a"]
    assert shelves.titles(filters={"batch_id": "btch_aaaaaaaaaaaa"}, sort={"field": "created_at"}) == ["a", "b"]
    assert shelves.titles(sort={"field": "source_object_id", "direction": "desc"})[0] == "c"
    (first, *_) = shelves.page(filters={"source_object_id": "obj_1"})["results"]
    internal = first["_internal"]
    assert internal["lineage"] | {"chain": [], "run_id": None} == {
        "root_object_id": "obj_1",
        "root_bucket_id": shelves.bucket.bucket_id,
        "source_type": "bucket",
        "source_object_id": "obj_1",
        "source_document_id": None,
        "source_collection_id": None,
        "batch_id": "btch_aaaaaaaaaaaa",
        "run_id": None,
        "path": f"{shelves.bucket.bucket_id}/{shelves.articles.collection_id}",
        "chain": [],
    }
    assert internal["lineage"]["chain"][0]["collection_id"] == shelves.articles.collection_id
    (blob,) = first["document_blobs"]
    assert (blob["field"], blob["type"], blob["role"]) == ("content", "text", "source")
    grouped = shelves.page(group_by="source_object_id")
    assert [(group["group_key"], group["count"]) for group in grouped["groups"]] == [("obj_1", 2), ("obj_2", 1)]


def test_groups_are_paged_the_largest_first_with_their_documents(shelves: Shelves) -> None:
    shelves.put(shelves.articles, [{"kind": "a", "title": n} for n in range(5)] + [{"kind": "b", "title": 9}, {"title": 10}])
    answer = shelves.page(group_by={"field": "kind"}, limit=2, sort={"field": "created_at"})
    assert "results" not in answer
    assert answer["group_by_field"] == "kind"
    assert next((g["group_key"], g["count"], [d["title"] for d in g["documents"]]) for g in answer["groups"]) == (
        "a",
        5,
        [0, 1, 2, 3, 4],
    )
    assert answer["stats"] | {"avg_blobs_per_document": 0} == {
        "total_documents": 7,
        "avg_blobs_per_document": 0,
        "total_groups": 3,
        "avg_documents_per_group": 7 / 3,
    }
    following = shelves.page(group_by="kind", limit=2, sort={"field": "created_at"}, cursor=answer["pagination"]["next_cursor"])
    assert sorted(str(g["group_key"]) for g in answer["groups"] + following["groups"]) == ["None", "a", "b"]
    assert following["pagination"]["has_more"] is False
    assert shelves.page(group_by="kind", offset=10)["stats"]["total_groups"] == 3
    by_key = shelves.page(group_by="kind", sort={"field": "kind", "direction": "desc"})
    assert [g["group_key"] for g in by_key["groups"]] == ["b", "a", None]


def test_a_cursor_neither_repeats_nor_skips_while_documents_come(shelves: Shelves) -> None:
    shelves.put(shelves.articles, [{"title": n, "at": n} for n in range(20)])
    for sort in ({"field": "created_at", "direction": "desc"}, {"field": "title", "direction": "asc"}):
        seen: list[Any] = []
        cursor = None
        while True:
            answer = shelves.page(limit=6, cursor=cursor, sort=sort)
            seen += [one["title"] for one in answer["results"] if isinstance(one["title"], int) and one["title"] < 20]
            shelves.put(shelves.notes, [{"title": 100, "at": 59}])
            cursor = answer["pagination"]["next_cursor"]
            if cursor is None:
                break
        assert sorted(seen) == list(range(20))


def test_a_cursor_of_another_request_is_refused(shelves: Shelves) -> None:
    shelves.put(shelves.articles, [{"title": n} for n in range(3)])
    cursor = shelves.page(limit=1)["pagination"]["next_cursor"]
    with pytest.raises(BadRequest, match="cursor"):
        shelves.page(limit=1, cursor=cursor, search="x")
    with pytest.raises(BadRequest, match="cursor"):
        shelves.page(cursor="nonsense")
    with pytest.raises(BadRequest, match="cursor"):
        shelves.page(cursor=cursor, group_by="title")


def test_offset_and_partition_cut_without_overlap(shelves: Shelves) -> None:
    shelves.put(shelves.articles, [{"title": n} for n in range(30)])
    assert shelves.titles(offset=28, sort={"field": "title"}) == [28, 29]
    slices = [shelves.titles(partition={"index": index, "count": 3}, limit=100) for index in range(3)]
    assert sorted(title for one in slices for title in one) == list(range(30))
    assert max(map(len, slices)) < 30


def test_unknown_collections_are_named_and_nothing_else_is_shown(shelves: Shelves) -> None:
    shelves.put(shelves.articles, [{"title": "a"}])
    shelves.put(shelves.notes, [{"title": "n"}])
    assert shelves.titles(collection_ids=["notes"]) == ["n"]
    assert shelves.titles(collection_id=shelves.articles.collection_id) == ["a"]
    answer = shelves.page(collections=["col_gone"])
    assert (answer["results"], answer["unknown_collection_ids"]) == ([], ["col_gone"])
    assert shelves.page(collection_ids=["col_gone"], group_by="title")["groups"] == []


def test_another_namespace_sees_nothing(shelves: Shelves) -> None:
    (doc,) = shelves.put(shelves.articles, [{"title": "secret"}])
    other = Shelves(shelves.warehouse, "other")
    other.put(other.articles, [{"ref": doc, "title": "mine"}])
    assert other.titles() == ["mine"]
    assert other.titles(collection_ids=[shelves.articles.collection_id]) == []
    assert other.page(expand=["ref"])["results"][0]["_expanded"] == {}


def test_references_are_expanded_one_level_deep(shelves: Shelves) -> None:
    one, two = shelves.put(shelves.notes, [{"title": "one"}, {"title": "two"}])
    shelves.put(shelves.articles, [{"title": "a", "customer_id": one, "refs": [one, two, "doc_gone"], "none": "doc_gone"}])
    (answer,) = shelves.page(collection_ids=["articles"], expand=["customer_id", "refs", "none", "missing"])["results"]
    expanded = answer["_expanded"]
    assert expanded["customer_id"]["title"] == "one"
    assert [each["title"] for each in expanded["refs"]] == ["one", "two"]
    assert set(expanded) == {"customer_id", "refs"}


def test_only_fifty_references_are_expanded_and_the_answer_says_so(shelves: Shelves) -> None:
    ids = shelves.put(shelves.notes, [{"title": n} for n in range(55)])
    shelves.put(shelves.articles, [{"refs": ids}])
    answer = shelves.page(collection_ids=["articles"], expand=["refs"])
    assert len(answer["results"][0]["_expanded"]["refs"]) == 50
    assert "55" in answer["warnings"][0]


def test_vectors_come_by_name(shelves: Shelves) -> None:
    shelves.put(shelves.articles, [{"title": "a"}])
    shelves.put_vectors(stub_extractor_v1_embedding=[1.0, 0.5], other=[2.0])
    assert shelves.page(return_vectors=True)["results"][0]["vectors"] == {
        "other": [2.0],
        "stub_extractor_v1_embedding": [1.0, 0.5],
    }
    assert shelves.page(return_vector_names=True)["results"][0]["_vectors"] == ["other", "stub_extractor_v1_embedding"]
    assert "vectors" not in shelves.page(return_vector_names=True)["results"][0]
    uri = "mixpeek://stub_extractor@v1/embedding"
    for name in ("stub_extractor_v1_embedding", uri):
        assert list(shelves.page(return_vector_names=[name])["results"][0]["vectors"]) == ["stub_extractor_v1_embedding"]


def test_search_finds_a_term_anywhere_ignoring_case(shelves: Shelves) -> None:
    shelves.put(shelves.articles, [{"title": "a", "deep": {"text": ["Wireless HEADPHONES"]}}, {"title": "b"}])
    assert shelves.titles(search="headphones") == ["a"]
    assert shelves.titles(search="") == ["b", "a"]


def test_payload_fields_never_hide_the_systems(shelves: Shelves) -> None:
    (doc,) = shelves.put(shelves.articles, [{"document_id": "mine", "_internal": 1, "document_blobs": 2, "title": "a"}])
    (answer,) = shelves.page()["results"]
    assert answer["document_id"] == doc
    assert answer["document_blobs"] == []
    assert answer["_internal"]["document_id"] == doc


def test_an_unknown_key_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValidationError, match=r"'filter'.*accepted are .*collection_ids.*filters"):
        ListRequest.model_validate({"filter": {}})
    with pytest.raises(ValidationError):
        ListRequest.model_validate({"limit": 0})
    assert ListRequest.model_validate({"page_size": 7, "sort": None, "group_by": None}).limit == 7


def test_what_is_wrong_in_words_is_invalid(shelves: Shelves) -> None:
    for body, word in (
        ({"filters": {"field": "a", "operator": "nope", "value": 1}}, "operator"),
        ({"sort": {"field": "a..b"}}, "sort.field"),
        ({"group_by": "a..b"}, "group_by"),
        ({"select": ["a..b"]}, r"select\[0\]"),
        ({"expand": [".a"]}, r"expand\[0\]"),
    ):
        with pytest.raises(Invalid, match=word):
            shelves.page(**body)


def test_a_page_takes_as_many_queries_as_ten(shelves: Shelves) -> None:
    shelves.put_object("obj_1")
    shelves.put_vectors(embedding=[1.0])
    shelves.put(shelves.articles, [{"title": n} for n in range(50)], root_object_id="obj_1")
    body = {"return_vectors": True, "expand": ["title"], "sort": {"field": "title"}}
    few, many = (
        _queries(shelves, lambda: shelves.page(limit=2, **body)),
        _queries(shelves, lambda: shelves.page(limit=50, **body)),
    )
    assert few == many <= 10


def _queries(shelves: Shelves, action: Callable[[], object]) -> int:
    seen = []
    engine = shelves.warehouse.catalog.engine

    def note(*args: Any) -> None:
        seen.append(args[2])

    event.listen(engine, "before_cursor_execute", note)
    action()
    event.remove(engine, "before_cursor_execute", note)
    return len(seen)


def test_presigned_urls_are_made_by_the_caller(shelves: Shelves) -> None:
    shelves.put_object("obj_1")
    shelves.put(shelves.articles, [{"title": "a"}], root_object_id="obj_1")
    for wanted, url in ((True, "signed:obj_1:0"), (False, None)):
        request = ListRequest(return_presigned_urls=wanted)
        answer = list_documents(
            shelves.warehouse,
            request,
            namespace_id=shelves.namespace.namespace_id,
            presign=lambda stored, place: f"signed:{stored.object_id}:{place}",
        )
        assert answer["results"][0]["document_blobs"][0]["presigned_url"] == url
