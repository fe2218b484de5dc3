"""Routes of documents, their changes, counts, lineage and search."""

from typing import Any

import pytest

from mixpeek_dagster.api.app import create_app
from tests.api.running import Shop, shop

__all__ = ["shop"]


@pytest.fixture
def full(shop: Shop) -> Shop:
    """The shop with three objects processed, and `above` reading from `passages`."""
    shop.collection("above", {"type": "collection", "collection_id": shop.collection_id})
    shop.batch(shop.add("a", "b", "c"), auto_submit=True)
    assert shop.run() == 1
    return shop


def path(shop: Shop, rest: str = "") -> str:
    return f"/v1/collections/passages/documents{rest}"


def test_documents_are_listed_read_and_batch_read(full: Shop) -> None:
    listed = full.documents(collection_ids=["passages"])
    assert sorted(one["sku"] for one in listed) == ["a", "b", "c"]
    doc = listed[0]["document_id"]
    assert full.get(f"/v1/documents/{doc}")["document_id"] == doc
    assert full.get(path(full, f"/{doc}"))["_internal"]["lineage"]["source_type"] == "bucket"
    assert full.get(f"/v1/collections/above/documents/{doc}", status=404)["error"]["type"] == "NotFoundError"
    answer = full.post("/v1/documents/batch-get", {"document_ids": [doc, "doc_gone", doc]})
    assert [one["document_id"] for one in answer["documents"]] == [doc]
    assert answer["not_found"] == ["doc_gone"]
    url = answer["documents"][0]["document_blobs"][0]["presigned_url"]
    assert full.client.get(url, headers={"Authorization": ""}).text == listed[0]["sku"]
    assert full.get(path(full) + '?limit=1&sort={"field":"sku","direction":"desc"}')["results"][0]["sku"] == "c"
    assert full.get(f"/v1/documents/{doc}?return_vector_names=true")["_vectors"] == ["stub_extractor_v1_embedding"]
    assert len(full.get(f"/v1/documents/{doc}?return_vectors=true")["vectors"]["stub_extractor_v1_embedding"]) == 384


def test_a_document_is_patched_replaced_and_deleted_with_what_was_made_of_it(full: Shop) -> None:
    doc = full.documents(collection_ids=["passages"], filters={"sku": "a"})[0]["document_id"]
    patched = full.client.patch(f"/v1/documents/{doc}", json={"tag": 1, "document_id": "mine", "_internal": {}}).json()
    assert (patched["tag"], patched["sku"], patched["document_id"]) == (1, "a", doc)
    replaced = full.client.put(path(full, f"/{doc}"), json={"only": True}).json()
    assert "tag" not in replaced
    assert replaced["only"] is True
    assert len(full.documents()) == 6
    assert full.client.delete(path(full, f"/{doc}")).json()["success"] is True
    assert len(full.documents()) == 4
    assert full.get(path(full, "/count"))["count"] == 2
    assert full.client.delete(f"/v1/documents/{doc}").status_code == 404


def test_documents_are_written_directly_with_vectors(full: Shop) -> None:
    made = full.post(path(full), {"title": "mine", "vectors": {"embedding": [0.5] * 384}, "root_object_id": "obj_x"})
    assert made["_internal"]["lineage"]["root_object_id"] == "obj_x"
    read = full.get(f"/v1/documents/{made['document_id']}?return_vectors=true")
    assert read["vectors"]["stub_extractor_v1_embedding"][:2] == [0.5, 0.5]
    for vectors in ({"embedding": [1.0]}, {"nope": [1.0]}, {"embedding": "x"}, [1]):
        assert full.client.post(path(full), json={"vectors": vectors}).status_code == 422


def test_many_are_changed_and_deleted(full: Shop) -> None:
    ids = [one["document_id"] for one in full.documents(collection_ids=["passages"])]
    updates = [{"document_id": one, "update_data": {"seen": True}} for one in [*ids, "doc_gone"]]
    answer = full.post(path(full, "/batch"), {"updates": updates})
    assert (answer["updated_count"], answer["failed_count"]) == (3, 1)
    assert [one["success"] for one in answer["results"]] == [True, True, True, False]
    task = full.client.patch(path(full, "/bulk"), json={"filters": {"sku": "a"}, "update_data": {"bulk": 1}}).json()
    assert task["task_type"] == "api_collections_documents_bulk_update"
    assert full.get(f"/v1/tasks/{task['task_id']}")["status"] == "COMPLETED"
    assert len(full.documents(filters={"bulk": 1})) == 1
    gone = full.client.request("DELETE", path(full, "/batch"), json={"document_ids": [ids[0], "doc_gone"]}).json()
    assert (gone["deleted_count"], gone["failed_count"]) == (1, 1)
    task = full.client.request("DELETE", path(full, "/batch"), json={"filters": {"field": "sku", "operator": "exists"}}).json()
    assert full.get(f"/v1/tasks/{task['task_id']}")["status"] == "COMPLETED"
    assert full.documents() == []
    assert full.client.request("DELETE", path(full, "/batch"), json={}).status_code == 422


def test_values_are_counted_and_aggregated(full: Shop) -> None:
    for n in range(4):
        body = {"kind": "x" if n else "y", "n": n, "at": f"2026-0{n + 1}-05", "tags": ["t", f"t{n}"]}
        full.post("/v1/collections/above/documents", body)
    above = "/v1/collections/above/documents"
    distinct = full.post(f"{above}/distinct", {"field": "kind"})
    assert distinct["values"] == [{"value": "x", "count": 3}, {"value": "y", "count": 1}]
    assert distinct["total_distinct"] == 2
    some = {"filters": {"field": "kind", "operator": "exists"}}
    sums = {"aggregations": [{"function": "sum", "field": "n", "alias": "total"}, {"function": "count", "alias": "many"}]}
    answer = full.post(f"{above}/aggregate", {**some, **sums, "group_by": [{"field": "kind"}]})
    assert answer["results"] == [
        {"group": {"kind": "x"}, "metrics": {"total": 6, "many": 3}},
        {"group": {"kind": "y"}, "metrics": {"total": 0, "many": 1}},
    ]
    kept = full.post(
        f"{above}/aggregate",
        {**some, **sums, "group_by": [{"field": "kind"}], "having": [{"field": "many", "operator": "gt", "value": 1}]},
    )
    assert kept["total_groups"] == 1
    months = {"group_by": [{"field": "at", "alias": "m", "date_part": "month"}], "sort_by": "m", "sort_direction": "asc"}
    answer = full.post(f"{above}/aggregate", {**some, **sums, **months})
    assert [one["group"]["m"] for one in answer["results"]] == [1, 2, 3, 4]
    tags = {"unwind": "tags", "group_by": [{"field": "tags"}], "limit": 1}
    assert full.post(f"{above}/aggregate", {**some, **sums, **tags})["results"][0]["metrics"]["many"] in (1, 4)
    ranges = {"range_buckets": [{"field": "n", "boundaries": [0, 2, 3]}], "sort_by": "many"}
    found = full.post(f"{above}/aggregate", {**some, **sums, **ranges})["results"]
    assert {one["group"]["n"]: one["metrics"]["many"] for one in found} == {"0-2": 2, "2-3": 1, "other": 1}
    lists = [
        {"function": name, "field": "n", "alias": name} for name in ("push", "add_to_set", "first", "last", "avg", "min", "max")
    ]
    metrics = full.post(f"{above}/aggregate", {**some, "aggregations": lists})["results"][0]["metrics"]
    assert sorted(metrics["push"]) == [0, 1, 2, 3]
    assert (metrics["avg"], metrics["min"], metrics["max"]) == (1.5, 0, 3)
    assert full.client.post(f"{above}/aggregate", json={"aggregations": [{"function": "sum", "alias": "a"}]}).status_code == 422


def test_lineage_is_told_up_and_down(full: Shop) -> None:
    top = full.documents(collection_ids=["above"])[0]
    chain = full.get(f"/v1/documents/{top['document_id']}/lineage")
    assert (chain["depth"], chain["total_steps"]) == (2, 2)
    assert next(one["collection_id"] for one in chain["lineage"]["lineage_chain"]) == full.collection_id
    up = full.client.get(f"/v1/documents/{top['document_id']}/ancestors").json()
    assert [one["document_id"] for one in up] == [chain["lineage"]["source_document_id"]]
    below = f"documents/{up[0]['document_id']}/descendants"
    for route in (f"/v1/{below}", f"/v1/collections/passages/{below}"):
        down = full.client.get(route)
        assert [one["document_id"] for one in down.json()] == [top["document_id"]]
        assert down.headers["X-Total-Count"] == "1"
        assert full.client.get(f"{route}?offset=1").json() == []
    for what in ("lineage", "ancestors", "descendants"):
        assert full.client.get(f"/v1/collections/above/documents/{up[0]['document_id']}/{what}").status_code == 404
    root = chain["lineage"]["root_object_id"]
    assert full.get(f"/v1/objects/{root}/documents")["total"] == 2
    assert full.get(f"/v1/objects/{root}/documents?collection_ids=above")["total"] == 1
    tree = full.get(f"/v1/objects/{root}/decomposition-tree?include_document_ids=true")
    assert tree["tree"][0]["children"][0]["document_ids"] == [top["document_id"]]


def test_search_finds_the_same_text_first(full: Shop) -> None:
    body = {"query": "b", "feature_uri": "mixpeek://stub_extractor@v1/embedding", "collection_identifiers": ["passages"]}
    answer = full.post("/v1/features/search", body)
    assert answer["results"][0]["sku"] == "b"
    assert answer["results"][0]["score"] == pytest.approx(1.0, abs=1e-3)
    only = full.post("/v1/features/search", {**body, "filters": {"sku": "c"}, "query": {"text": "b"}})
    assert [one["sku"] for one in only["results"]] == ["c"]
    assert full.client.post("/v1/features/search", json={"query": {}}).status_code == 422


def test_the_catalogue_names_every_extractor(full: Shop) -> None:
    every: Any = full.client.get("/v1/collections/features/extractors").json()
    assert {"text_extractor_v1", "image_extractor_v1"} <= {one["feature_extractor_id"] for one in every}
    assert full.get("/v1/collections/features/extractors/text_extractor_v1")["icon"]
    assert full.client.get("/v1/collections/features/extractors/nope_v1").status_code == 404
    assert full.get("/v1/collections/features")["features"] == ["mixpeek://stub_extractor@v1/embedding"]
    own = full.get("/v1/namespaces/production/extractors")
    assert own["total"] == own["builtin_count"] + own["custom_count"] == len(every)
    assert full.get("/v1/namespaces/production/extractors?source=custom")["total"] == own["custom_count"]
    assert full.get("/v1/namespaces/production/extractors/text_extractor_v1")["version"] == "v1"
    assert full.client.get("/v1/namespaces/production/extractors/nope_v1").status_code == 404


def test_events_are_read_in_order_from_where_one_stopped(full: Shop) -> None:
    first = full.get("/v1/events?limit=2")
    rest = full.get(f"/v1/events?cursor={first['next_cursor']}")
    kinds = [one["event_type"] for one in first["results"] + rest["results"]]
    assert first["has_more"] is True
    assert rest["has_more"] is False
    assert "batch.completed" in kinds
    assert kinds.count("object.created") == 3
    assert full.get(f"/v1/events?cursor={rest['next_cursor']}")["results"] == []
    assert full.client.get("/v1/events?cursor=x").status_code == 400


def test_another_namespace_reaches_none_of_it(full: Shop) -> None:
    doc = full.documents()[0]
    root = doc["_internal"]["lineage"]["root_object_id"]
    other = full.post("/v1/namespaces", {"namespace_name": "other"})["namespace_id"]
    full.client.headers["X-Namespace"] = other
    for route in (
        f"/v1/documents/{doc['document_id']}",
        f"/v1/documents/{doc['document_id']}/lineage",
        f"/v1/documents/{doc['document_id']}/ancestors",
        f"/v1/documents/{doc['document_id']}/descendants",
        f"/v1/objects/{root}/documents",
        f"/v1/objects/{root}/decomposition-tree",
        f"/v1/collections/{full.collection_id}",
        f"/v1/collections/{full.collection_id}/documents",
        f"/v1/batches/{doc['_internal']['lineage']['batch_id']}",
    ):
        assert full.client.get(route).status_code == 404, route
    assert full.documents() == []
    assert full.post("/v1/documents/batch-get", {"document_ids": [doc["document_id"]]})["documents"] == []
    assert full.get("/v1/events")["results"] == []
    assert full.post("/v1/batches/list")["results"] == []
    assert full.post("/v1/tasks/list")["results"] == []


def test_the_openapi_description_can_be_made(full: Shop) -> None:
    paths = create_app(full.warehouse).openapi()["paths"]
    assert "/v1/documents/list/batch" in paths
    assert len(paths) > 60
