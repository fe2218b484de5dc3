"""Several batches at once, and what is said about one: audit, estimate, diagnosis, logs, retries of a kind or a tier."""

from typing import Any

from tests.api.running import STUB, Shop, shop

__all__ = ["shop"]


def path(shop: Shop, batch: dict[str, Any], rest: str = "") -> str:
    return f"/v1/buckets/{shop.bucket_id}/batches/{batch['batch_id']}{rest}"


def add_picky(shop: Shop) -> str:
    """A collection that fails on the text `bad`."""
    picky = {"feature_extractor_name": STUB, "input_mappings": {"text": "content"}, "parameters": {"fail_on": "bad"}}
    source = {"type": "bucket", "bucket_id": shop.bucket_id}
    made = shop.post("/v1/collections", {"collection_name": "picky", "source": source, "feature_extractor": picky})
    return str(made["collection_id"])


def test_a_bucket_is_cut_into_batches_that_name_their_group(shop: Shop) -> None:
    shop.add("a", "b", "c", "d")
    body = {"chunk_size": 2, "max_objects": 3, "filters": {"field": "sku", "operator": "ne", "value": "a"}}
    done = shop.post(f"/v1/buckets/{shop.bucket_id}/batches/bulk-submit", body)
    assert (done["total_objects"], done["total_batches"], done["submitted"], done["failed"]) == (3, 2, 2, 0)
    assert [one["object_count"] for one in done["batches"]] == [2, 1]
    first = shop.get(path(shop, done["batches"][0]))
    assert (first["status"], first["metadata"]) == ("QUEUED", {"batch_group_id": done["batch_group_id"]})
    queue = shop.get("/v1/batches/queue")
    assert [(one["batch_id"], one["queue_position"]) for one in queue["waiting"]] == [
        (one["batch_id"], place) for place, one in enumerate(done["batches"], 1)
    ]
    assert shop.get(path(shop, done["batches"][1]))["progress"]["queue_position"] == 2
    assert shop.get(f"/v1/tasks/{done['batches'][1]['task_id']}")["queue_position"] == 2
    shop.run()
    assert {one["sku"] for one in shop.documents()} == {"b", "c", "d"}
    empty = shop.post(f"/v1/buckets/{shop.bucket_id}/batches/bulk-submit", {"filters": {"sku": "none"}})
    assert (empty["total_batches"], shop.get("/v1/batches/queue")["waiting_count"]) == (0, 0)
    route = f"/v1/buckets/{shop.bucket_id}/batches/bulk-submit"
    assert shop.client.post(route, json={"collection_ids": ["none"]}).status_code == 404
    assert shop.client.post(route, json={"chunk_size": 0}).status_code == 422


def test_all_drafts_are_submitted_and_one_that_cannot_be_keeps_no_other_back(shop: Shop) -> None:
    empty = shop.post(f"/v1/buckets/{shop.bucket_id}/batches", {"filters": {"sku": "none"}})
    full = shop.batch(shop.add("a"))
    done = shop.post(f"/v1/buckets/{shop.bucket_id}/batches/submit-all")
    assert (done["submitted"], done["failed"]) == (1, 1)
    told = {one["batch_id"]: one for one in done["batches"]}
    assert "no objects" in told[empty["batch_id"]]["error"]
    assert (told[full["batch_id"]]["status"], told[full["batch_id"]]["error"]) == ("QUEUED", None)


def test_an_estimate_tells_what_is_done_and_what_would_be_replaced(shop: Shop) -> None:
    old = shop.add("a", "b")
    shop.batch(old, auto_submit=True)
    shop.run()
    batch = shop.batch([*old, *shop.add("c")], dedup_strategy="replace")
    told = shop.post(path(shop, batch, "/estimate-cost"))
    assert (told["object_count"], told["already_extracted_count"], told["documents_to_remove"]) == (3, 2, 2)
    assert (told["collection_ids"], told["estimated_credits"]) == ([shop.collection_id], 0)
    skipping = shop.batch(old)
    assert shop.post(path(shop, skipping, "/estimate-cost"))["documents_to_remove"] == 0


def test_a_diagnosis_says_why_and_what_to_do(shop: Shop) -> None:
    picky = add_picky(shop)
    draft = shop.batch(shop.add("good", "bad", *[f"ok{n}" for n in range(18)]))
    assert "Submit it" in shop.get(path(shop, draft, "/diagnose"))["recommendations"][0]
    shop.post(path(shop, draft, "/submit"))
    assert "Dagster daemon" in shop.get(path(shop, draft, "/diagnose"))["recommendations"][0]
    shop.run()
    told = shop.get(path(shop, draft, "/diagnose"))
    assert (told["errors"], len(told["failed_documents"])) == ({"extraction_failed": 1}, 1)
    assert "1 failures stay" in told["recommendations"][0]
    assert told["parts"][0]["run_id"].startswith("run-")
    (tier,) = shop.get(path(shop, draft, "/logs"))["logs"]
    assert any(f"{picky} part 1: 20 read, 19 documents written, 1 failed" in line for line in tier["lines"])
    assert shop.get(path(shop, draft, "/logs?tier_num=1"))["logs"] == []
    done = shop.get(path(shop, draft))
    assert done["error_summary"] == {"extraction_failed": 1}
    jobs = {one["collection_ids"][0]: one for one in done["tier_tasks"][0]["extractor_jobs"]}
    assert (jobs[picky]["documents_written"], jobs[picky]["status"]) == (19, "COMPLETED")
    assert done["progress"]["objects_failed"] == 1
    assert done["last_activity_at"] >= done["submitted_at"]


def test_only_failures_of_the_kind_and_tier_that_are_named_are_tried_again(shop: Shop) -> None:
    picky = add_picky(shop)
    batch = shop.batch(shop.add("good", "bad", *[f"ok{n}" for n in range(18)]), auto_submit=True)
    shop.run()
    for body in ({"retry_mode": "transient_only"}, {"retry_mode": "all", "tier_nums": [1]}):
        assert shop.post(path(shop, batch, "/retry"), body)["batch_id"] == batch["batch_id"], body
    assert shop.client.post(path(shop, batch, "/tiers/1/retry")).status_code == 404
    assert shop.client.post(path(shop, batch, "/retry"), json={"retry_mode": "sometimes"}).status_code == 422
    again = shop.post(path(shop, batch, "/tiers/0/retry"))
    assert (again["original_batch_id"], again["object_count"]) == (batch["batch_id"], 1)
    for query, count in ((f"collection_id={picky}", 1), ("tier_num=0", 1), ("tier_num=1", 0), ("collection_id=x", 0)):
        assert shop.get(path(shop, batch, f"/failed-documents?{query}"))["total"] == count, query


def test_what_a_batch_wrote_is_deleted_and_nothing_else(shop: Shop) -> None:
    shop.collection("above", {"type": "collection", "collection_ids": [shop.collection_id]}, field_passthrough=[])
    first = shop.batch(shop.add("a", "b"), auto_submit=True)
    shop.run()
    second = shop.batch(shop.add("c"), auto_submit=True)
    assert shop.client.delete(path(shop, second, "/documents")).status_code == 400
    shop.run()
    gone = shop.client.delete(path(shop, first, "/documents")).json()
    assert gone["deleted_count"] == 4
    assert {one["_internal"]["lineage"]["batch_id"] for one in shop.documents()} == {second["batch_id"]}
    assert shop.client.delete(path(shop, first, "/documents")).json()["deleted_count"] == 0
    assert shop.get(path(shop, first))["status"] == "COMPLETED"
