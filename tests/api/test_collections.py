"""Routes of collections."""

from collections.abc import Callable

import pytest

from tests.api.running import STUB, Shop, shop

__all__ = ["shop"]


def test_a_collection_is_read_by_id_and_name_with_what_clients_require(shop: Shop) -> None:
    for name in (shop.collection_id, "passages"):
        read = shop.get(f"/v1/collections/{name}")
        assert read["collection_id"] == shop.collection_id
    assert read["feature_extractor"]["feature_extractor_id"]
    assert read["source"] == {"type": "bucket", "bucket_ids": [shop.bucket_id]}
    assert read["output_schema"]["properties"]["sku"]["type"] == "string"
    assert read["vector_indexes"][0]["dimensions"] == 384


def test_collections_are_listed_searched_and_counted(shop: Shop) -> None:
    shop.collection("above", {"type": "collection", "collection_id": shop.collection_id})
    listed = shop.post("/v1/collections/list", {"limit": 1, "sort": {"field": "collection_name"}})
    assert [one["collection_name"] for one in listed["results"]] == ["above"]
    assert (listed["total_count"], listed["pagination"]["has_more"]) == (2, True)
    assert listed["stats"]["total_feature_extractors"] == 1
    found = shop.get("/v1/collections?search=PASS")
    assert [one["collection_name"] for one in found["results"]] == ["passages"]
    assert shop.post("/v1/collections/list")["total_count"] == 2


def test_a_collection_is_changed_cloned_and_deleted_with_its_documents(shop: Shop) -> None:
    shop.batch(shop.add("a"), auto_submit=True)
    shop.run()
    changed = shop.client.patch("/v1/collections/passages", json={"collection_name": "texts", "enabled": False}).json()
    assert (changed["collection_name"], changed["enabled"], changed["document_count"]) == ("texts", False, 1)
    assert shop.client.post("/v1/collections/texts/trigger").status_code == 400
    cloned = shop.post("/v1/collections/texts/clone", {"collection_name": "copy", "enabled": True})
    assert cloned["source_collection_id"] == shop.collection_id
    assert (cloned["collection"]["document_count"], cloned["collection"]["enabled"]) == (0, True)
    assert shop.client.post("/v1/collections/texts/clone", json={"collection_name": "copy"}).status_code == 409
    assert shop.client.patch("/v1/collections/copy", json={"collection_name": "texts"}).status_code == 409
    above = shop.collection("above", {"type": "collection", "collection_id": shop.collection_id})
    assert shop.client.delete("/v1/collections/texts").status_code == 400
    assert shop.client.delete("/v1/collections/texts?force=true").json()["success"] is True
    assert shop.get(f"/v1/collections/{above}")["enabled"] is False
    assert shop.documents() == []
    assert shop.client.get("/v1/collections/texts").status_code == 404


def test_bad_collections_are_refused(shop: Shop) -> None:
    source = {"type": "bucket", "bucket_ids": [shop.bucket_id]}
    stub = {"feature_extractor_name": STUB, "version": "v1"}
    for body, status in (
        ({"collection_name": "passages", "source": source, "feature_extractor": stub}, 409),
        ({"collection_name": "x1x", "source": {"type": "bucket", "bucket_ids": ["gone"]}, "feature_extractor": stub}, 404),
        (
            {
                "collection_name": "x1x",
                "source": source,
                "feature_extractor": {"feature_extractor_name": "nope", "version": "v1"},
            },
            422,
        ),
        ({"collection_name": "x", "source": source, "feature_extractor": stub}, 422),
        ({"collection_name": "x1x", "source": {"type": "bucket"}, "feature_extractor": stub}, 422),
        ({"collection_name": "x1x", "source": source}, 422),
        (
            {
                "collection_name": "x1x",
                "source": source,
                "feature_extractor": {**stub, "parameters": {"extractor_type": "other"}},
            },
            422,
        ),
    ):
        assert shop.client.post("/v1/collections", json=body).status_code == status, body


def test_features_are_named(shop: Shop) -> None:
    (feature,) = shop.get("/v1/collections/passages/features")["features"]
    assert feature["feature_uri"] == "mixpeek://stub_extractor@v1/embedding"


def test_payload_indexes_of_a_namespace_come_and_go(shop: Shop) -> None:
    from sqlalchemy import text

    def names() -> int:
        with shop.warehouse.catalog.reading() as records:
            query = "SELECT count(*) FROM sqlite_master WHERE type = 'index' AND name LIKE 'payload!_%' ESCAPE '!'"
            return int(records.connection.execute(text(query)).scalar_one())

    made = shop.post(
        "/v1/namespaces", {"namespace_name": "indexed", "payload_indexes": [{"field_name": "sku", "type": "keyword"}]}
    )
    assert names() == 2
    path = f"/v1/namespaces/{made['namespace_id']}"
    assert shop.client.patch(path, json={"payload_indexes": [{"field_name": "n", "type": "integer"}]}).status_code == 200
    assert names() == 3
    assert shop.client.put(path, json={"payload_indexes": []}).status_code == 200
    assert names() == 0


@pytest.mark.parametrize(
    "name", ["text.extractor", ":x", "..a:b", "os:system", "json:dumps", "a b", "no.such.module:Thing", "é:é"]
)
def test_a_name_that_is_no_extractors_is_refused(shop: Shop, inventory: Callable[[], dict[str, int]], name: str) -> None:
    before = inventory()
    source = {"type": "bucket", "bucket_ids": [shop.bucket_id]}
    body = {"collection_name": "other", "source": source, "feature_extractor": {"feature_extractor_name": name, "version": "v1"}}
    error = shop.post("/v1/collections", body, status=422)["error"]
    assert error["code"] == "unknown_name"
    assert name in error["message"]
    assert inventory() == before


def test_numbers_in_the_query_of_a_list_are_finite(shop: Shop) -> None:
    filters = '{"field": "a", "operator": "gt", "value": NaN}'
    path = f"/v1/collections/{shop.collection_id}/documents"
    assert shop.client.get(path, params={"filters": filters}).status_code == 422
