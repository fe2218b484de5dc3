"""Routes of batches and tasks: the seed's lifecycle, wrong states, trying again, and accounting for every object."""

from typing import Any

import pytest

from tests.api.running import STUB, Shop, shop

__all__ = ["shop"]


def path(shop: Shop, batch: dict[str, Any], rest: str = "") -> str:
    return f"/v1/buckets/{shop.bucket_id}/batches/{batch['batch_id']}{rest}"


def test_a_batch_goes_from_draft_to_queued_to_completed(shop: Shop) -> None:
    batch = shop.batch(shop.add("a", "b"), metadata={"campaign_id": "c"}, batch_name="first")
    assert (batch["status"], batch["object_count"], batch["type"], batch["lifecycle"]) == ("DRAFT", 2, "BUCKET", "accepted")
    assert (batch["max_node_death_resubmits"], batch["max_deploy_resubmits"]) == (0, 0)
    assert batch["metadata"] == {"campaign_id": "c"}
    batch = shop.post(path(shop, batch, "/objects"), {"object_ids": [*batch["object_ids"], *shop.add("c")]})
    assert len(batch["object_ids"]) == 3
    task = shop.post(path(shop, batch, "/submit"))
    assert (task["task_type"], task["status"]) == ("api_buckets_batches_process", "QUEUED")
    assert shop.get(f"/v1/tasks/{task['task_id']}")["additional_data"]["batch_id"] == batch["batch_id"]
    shop.run()
    done = shop.get(path(shop, batch))
    assert (done["status"], done["lifecycle"], done["documents_written"]) == ("COMPLETED", "indexed", 3)
    assert (done["total_tiers"], done["dag_tiers"], done["progress"]["percent"]) == (1, [[shop.collection_id]], 100.0)
    (tier,) = done["tier_tasks"]
    assert (tier["tier_num"], tier["source_type"], tier["status"]) == (0, "bucket", "COMPLETED")
    audit = shop.get(path(shop, batch, "/audit"))
    assert (audit["all_balanced"], audit["has_lost_objects"]) == (True, False)
    assert shop.client.delete(path(shop, batch)).json()["success"] is True
    assert shop.client.get(path(shop, batch)).status_code == 404


def test_what_the_state_forbids_is_400(shop: Shop) -> None:
    empty = shop.post(f"/v1/buckets/{shop.bucket_id}/batches", {"filters": {"sku": "none"}})
    assert shop.client.post(path(shop, empty, "/submit")).status_code == 400
    batch = shop.batch(shop.add("a"))
    for rest in ("/retry", "/resubmit"):
        assert shop.client.post(path(shop, batch, rest)).status_code == 400
    shop.post(path(shop, batch, "/submit"))
    assert shop.client.post(path(shop, batch, "/submit")).status_code == 400
    assert shop.client.post(path(shop, batch, "/objects"), json={"object_ids": shop.add("b")}).status_code == 400
    assert shop.client.delete(path(shop, batch)).status_code == 400
    assert shop.client.post(path(shop, batch, "/submit"), json={"webhook_url": "http://127.0.0.1/"}).status_code == 422


def test_unknown_objects_collections_and_shapes_make_nothing(shop: Shop) -> None:
    (known,) = shop.add("a")
    create = f"/v1/buckets/{shop.bucket_id}/batches"
    for body, status in (
        ({"object_ids": [known, "obj_gone"]}, 404),
        ({"object_ids": [known], "collection_ids": ["gone"]}, 404),
        ({"object_ids": []}, 422),
        ({}, 422),
        ({"object_ids": [known], "filters": {}}, 422),
        ({"filters": {"field": "a", "operator": "nope"}}, 422),
    ):
        assert shop.client.post(create, json=body).status_code == status, body
    assert shop.post(f"{create}/list")["results"] == []


def test_a_batch_is_made_from_a_filter_and_submitted_at_once(shop: Shop) -> None:
    shop.add("a", "b", "ab")
    body = {"filters": {"field": "sku", "operator": "contains", "value": "a"}, "limit": 1}
    batch = shop.post(f"/v1/buckets/{shop.bucket_id}/batches?auto_submit=true", body)
    assert (batch["status"], batch["object_count"]) == ("QUEUED", 1)


def test_a_canceled_batch_stays_canceled(shop: Shop) -> None:
    batch = shop.batch(shop.add("a"), auto_submit=True)
    task = shop.post(f"/v1/batches/{batch['batch_id']}/cancel?reason=no")
    assert task["status"] == "CANCELED"
    assert shop.run() == 0
    assert shop.client.post(path(shop, batch, "/cancel")).status_code == 400
    other = shop.batch(shop.add("b"), auto_submit=True)
    assert shop.client.delete(f"/v1/tasks/{other['task_id']}").status_code == 200
    assert shop.get(path(shop, other))["status"] == "CANCELED"
    assert shop.client.delete(f"/v1/tasks/{other['task_id']}").status_code == 400


def test_what_failed_is_listed_with_its_reason_and_retried_alone(shop: Shop) -> None:
    picky = {"feature_extractor_name": STUB, "input_mappings": {"text": "content"}, "parameters": {"fail_on": "bad"}}
    source = {"type": "bucket", "bucket_id": shop.bucket_id}
    shop.post("/v1/collections", {"collection_name": "picky", "source": source, "feature_extractor": picky})
    batch = shop.batch(shop.add("good", "bad", *[f"ok{n}" for n in range(18)]), auto_submit=True)
    shop.run()
    done = shop.get(path(shop, batch))
    assert (done["status"], done["failed_object_count"]) == ("COMPLETED", 1)
    (failed,) = done["failed_objects"]
    assert {"object_id", "error", "error_type", "timestamp"} <= set(failed)
    listed = shop.get(path(shop, batch, "/failed-documents?limit=1"))
    assert listed["total"] == 1
    assert "fail" in listed["failed_documents"][0]["error"]
    assert shop.get(path(shop, batch, "/audit"))["tiers"][0]["failed"] == 1
    again = shop.post(path(shop, batch, "/retry"))
    assert (again["object_count"], again["original_batch_id"]) == (1, batch["batch_id"])
    before = len(shop.documents())
    shop.run()
    assert len(shop.documents()) == before
    assert shop.get(path(shop, batch))["status"] == "COMPLETED"


def test_a_resubmission_replaces_the_documents(shop: Shop) -> None:
    batch = shop.batch(shop.add("a", "b"), auto_submit=True)
    shop.run()
    assert shop.post(path(shop, batch, "/retry"))["batch_id"] == batch["batch_id"]
    again = shop.post(path(shop, batch, "/resubmit"))
    assert again["status"] == "QUEUED"
    shop.run()
    assert len(shop.documents()) == 2
    assert shop.documents()[0]["_internal"]["lineage"]["batch_id"] == again["batch_id"]


def test_the_same_work_is_submitted_twice_only_by_force(shop: Shop) -> None:
    first, second = shop.add("a", "b")
    shop.post(path(shop, shop.batch([first, second]), "/submit"))
    same = shop.batch([second])
    assert shop.client.post(path(shop, same, "/submit")).status_code == 409
    assert shop.get(path(shop, same))["status"] == "DRAFT"
    assert shop.post(path(shop, same, "/submit?force=true"))["status"] == "QUEUED"
    shop.post(path(shop, shop.batch(shop.add("c")), "/submit"))
    shop.run()
    shop.post(path(shop, shop.batch([first]), "/submit"))


def test_a_submission_may_choose_collections(shop: Shop) -> None:
    other = shop.collection("other", {"type": "bucket", "bucket_ids": [shop.bucket_id]})
    batch = shop.batch(shop.add("a"))
    shop.post(path(shop, batch, "/submit"), {"collection_ids": ["other"]})
    assert shop.get(path(shop, batch))["dag_tiers"] == [[other]]
    shop.run()
    assert [one["collection_id"] for one in shop.documents()] == [other]


def test_tasks_of_batches_and_others_are_listed_together(shop: Shop) -> None:
    batch = shop.batch(shop.add("a"), auto_submit=True)
    shop.client.patch("/v1/collections/passages/documents/bulk", json={"update_data": {"a": 1}})
    every = shop.post("/v1/tasks/list")
    assert {one["task_type"] for one in every["results"]} == {
        "api_buckets_batches_process",
        "api_collections_documents_bulk_update",
    }
    assert every["pagination"]["total_count"] == 2
    pending = shop.post("/v1/tasks/list", {"status": "PENDING"})["results"]
    assert [one["task_id"] for one in pending] == [batch["task_id"]]
    assert shop.client.get("/v1/tasks/task_gone").status_code == 404
    assert shop.client.post("/v1/tasks/list", json={"status": "NOPE"}).status_code == 422


@pytest.mark.parametrize("name", ["batch_name", "metadata"])
def test_a_batch_is_renamed_and_annotated(shop: Shop, name: str) -> None:
    batch = shop.batch(shop.add("a"))
    value: Any = "x" if name == "batch_name" else {"tags": ["x"]}
    assert shop.client.patch(path(shop, batch), json={name: value}).json()[name] == value
