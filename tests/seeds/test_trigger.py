"""Seeds 001 and 002: trigger a collection, list batches. Every field that the pages name."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from mixpeek_dagster.pipeline.warehouse import Warehouse
from tests.api.running import Shop, shop

__all__ = ["shop"]


def trigger(shop: Shop, body: Any = None, *, collection: str = "passages") -> dict[str, Any]:
    return shop.post(f"/v1/collections/{collection}/trigger", body, status=202)


def test_a_bucket_sourced_trigger_answers_every_field_and_can_be_watched(shop: Shop) -> None:
    shop.add("a", "b", "c")
    answer = trigger(shop)
    assert answer["collection_id"] == shop.collection_id
    assert answer["source_bucket_ids"] == [shop.bucket_id]
    assert answer["source_collection_ids"] is None
    assert (answer["object_count"], answer["document_count"], answer["total_tiers"]) == (3, None, 1)
    assert answer["message"]
    watched = shop.get(f"/v1/batches/{answer['batch_id']}")
    assert (watched["status"], watched["task_id"]) == ("QUEUED", answer["task_id"])
    assert shop.get(f"/v1/tasks/{answer['task_id']}")["status"] == "QUEUED"
    shop.run()
    assert shop.get(f"/v1/batches/{answer['batch_id']}")["status"] == "COMPLETED"
    assert shop.get(f"/v1/tasks/{answer['task_id']}")["status"] == "COMPLETED"
    assert len(shop.documents()) == 3


def test_a_collection_sourced_trigger_reads_upstream_documents(shop: Shop) -> None:
    other = shop.collection("others", {"type": "bucket", "bucket_ids": [shop.bucket_id]})
    both = {"type": "collection", "collection_ids": [shop.collection_id, other]}
    above = shop.collection("above", both)
    shop.collection("top", {"type": "collection", "collection_id": above})
    shop.add("a", "b")
    trigger(shop)
    trigger(shop, collection="others")
    shop.run()
    shop.post(f"/v1/collections/{above}/documents/batch", {"filters": {}, "update_data": {"old": True}})
    answer = trigger(shop, {"include_collections": ["passages"], "source_filters": {"sku": "a"}}, collection="above")
    assert answer["source_collection_ids"] == [shop.collection_id]
    assert answer["source_bucket_ids"] is None
    assert (answer["object_count"], answer["document_count"], answer["total_tiers"]) == (None, 1, 2)
    before = len(shop.documents(collection_ids=["top"]))
    shop.run()
    assert shop.get(f"/v1/batches/{answer['batch_id']}")["status"] == "COMPLETED"
    assert len(shop.documents(collection_ids=["top"])) > before


def test_objects_are_chosen_by_id_by_filter_and_by_bucket(shop: Shop) -> None:
    a, b, c = shop.add("a", "b", "c")
    shop.batch([c], auto_submit=True)
    shop.run()  # after that its status is COMPLETED
    pending = {"AND": [{"field": "status", "operator": "eq", "value": "pending"}]}
    by_id = {"AND": [{"field": "object_id", "operator": "in", "value": [a, c]}]}
    for body, count in (
        ({"object_ids": [a, c]}, 2),
        ({"source_filters": by_id}, 2),
        ({"source_filters": pending, "object_ids": [b, c]}, 1),
        ({"source_filters": {"sku": "c"}}, 1),
        ({"include_buckets": ["shop"]}, 3),
        ({"object_ids": []}, 0),
    ):
        assert trigger(shop, body)["object_count"] == count, body


def test_nothing_to_process_ends_at_once(shop: Shop) -> None:
    answer = trigger(shop)
    assert answer["object_count"] == 0
    assert shop.get(f"/v1/batches/{answer['batch_id']}")["status"] == "COMPLETED"


def test_without_a_unique_key_a_trigger_makes_new_documents(shop: Shop) -> None:
    shop.add("a", "b")
    for count in (2, 4):
        trigger(shop)
        shop.run()
        assert len(shop.documents()) == count
    trigger(shop, {"dedup_strategy": "skip"})
    shop.run()
    assert len(shop.documents()) == 4


def test_with_a_unique_key_a_trigger_upserts(client: TestClient, namespace: dict[str, Any], warehouse: Warehouse) -> None:
    shop = Shop(client, warehouse, unique_key={"fields": ["sku"], "default_policy": "upsert"})
    shop.add("a", "b")
    ids = []
    for _ in range(2):
        trigger(shop)
        shop.run()
        ids.append(sorted(one["document_id"] for one in shop.documents()))
    assert ids[0] == ids[1]
    assert len(ids[0]) == 2


def test_bad_triggers_write_nothing(shop: Shop) -> None:
    shop.add("a")
    other = shop.post("/v1/buckets", {"bucket_name": "other", "bucket_schema": {"properties": {"t": {"type": "text"}}}})
    for body, status in (
        ({"include_buckets": ["gone"]}, 404),
        ({"include_buckets": [other["bucket_id"]]}, 400),
        ({"source_filters": {"field": "a", "operator": "nope"}}, 422),
        ({"object_ids": "a"}, 422),
        ({"dedup_strategy": "sometimes"}, 422),
    ):
        assert shop.client.post("/v1/collections/passages/trigger", json=body).status_code == status, body
    assert shop.client.post("/v1/collections/gone/trigger").status_code == 404
    assert shop.post("/v1/batches/list")["total_count"] == 0


SEED_STATUSES = (
    "PENDING, IN_PROGRESS, PROCESSING, COMPLETED, FAILED, CANCELED, UNKNOWN, SKIPPED, DRAFT, ACTIVE, ARCHIVED, SUSPENDED"
)


def test_batches_are_listed_by_status_with_offset_and_limit(shop: Shop) -> None:
    path = f"/v1/buckets/{shop.bucket_id}/batches"
    ids = [shop.batch(shop.add(sku))["batch_id"] for sku in "abc"]
    shop.post(f"{path}/{ids[0]}/submit")
    answer = shop.post(f"{path}/list", {"status": "DRAFT", "offset": 1, "limit": 1})
    assert [one["batch_id"] for one in answer["results"]] == [ids[1]]
    assert (answer["total_count"], answer["pagination"]["total_count"], answer["pagination"]["offset"]) == (2, 2, 1)
    assert shop.post(f"{path}/list")["total_count"] == 3
    for status in SEED_STATUSES.split(", "):
        found = shop.post(f"{path}/list", {"status": status})["total_count"]
        assert found == {"DRAFT": 2, "PENDING": 1}.get(status, 0), status
    assert shop.post(f"{path}/list", {"status": "QUEUED"})["results"][0]["batch_id"] == ids[0]
    first = shop.post("/v1/batches/list", {"limit": 2})
    rest = shop.post("/v1/batches/list", {"limit": 2, "cursor": first["pagination"]["next_cursor"]})
    assert [one["batch_id"] for one in first["results"] + rest["results"]] == ids[::-1]


@pytest.mark.parametrize("body", [{"limit": 0}, {"limit": 1001}, {"offset": -1}, {"status": "NOPE"}, {"limit": "x"}])
def test_lists_outside_of_the_pages_bounds_are_422(shop: Shop, body: dict[str, Any]) -> None:
    assert shop.client.post(f"/v1/buckets/{shop.bucket_id}/batches/list", json=body).status_code == 422


def test_the_bounds_themselves_are_allowed(shop: Shop) -> None:
    for body in ({"limit": 1, "offset": 0}, {"limit": 1000}):
        shop.post(f"/v1/buckets/{shop.bucket_id}/batches/list", body)
