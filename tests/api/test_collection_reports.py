"""What is missing in a collection and why; documents that would fit; payload indexes made again; pages asked for in the query."""

from sqlalchemy import text

from mixpeek_dagster.pipeline.warehouse import Warehouse
from tests.api.running import STUB, Shop, shop

__all__ = ["shop"]


def test_a_reconciliation_names_every_object_without_a_document(shop: Shop) -> None:
    picky = {"feature_extractor_name": STUB, "input_mappings": {"text": "content"}, "parameters": {"fail_on": "bad"}}
    source = {"type": "bucket", "bucket_id": shop.bucket_id}
    shop.post("/v1/collections", {"collection_name": "picky", "source": source, "feature_extractor": picky})
    good = [f"ok{n}" for n in range(18)]
    ids = shop.add(*good, "bad")
    shop.batch(ids, auto_submit=True)
    shop.run()
    (waiting,) = shop.add("later")
    told = shop.get("/v1/collections/picky/reconciliation")
    counts = ("source_object_count", "produced_object_count", "document_count", "delta")
    assert [told[name] for name in counts] == [20, 18, 18, 2]
    assert {one["object_id"]: one["reason"] for one in told["discrepancies"]} == {ids[-1]: "failed", waiting: "processing"}
    assert told["discrepancies"][0]["error"]
    cut = shop.get("/v1/collections/picky/reconciliation?limit=1")
    assert (len(cut["discrepancies"]), cut["discrepancies_truncated"]) == (1, True)
    upper = {"type": "collection", "collection_ids": [shop.collection_id]}
    shop.collection("above", upper, field_passthrough=[])
    above = shop.get("/v1/collections/above/reconciliation")
    assert [above[name] for name in counts] == [19, 0, 0, 19]
    assert {one["reason"] for one in above["discrepancies"]} == {"no_document", "failed"}
    shop.post(f"/v1/buckets/{shop.bucket_id}/objects/bulk-soft-delete", {"object_ids": [waiting], "reason": "r"})
    told = shop.get("/v1/collections/picky/reconciliation")
    assert {one["object_id"]: one["reason"] for one in told["discrepancies"]}[waiting] == "skipped"


def test_a_document_is_diagnosed_and_another_is_checked_without_being_written(shop: Shop) -> None:
    shop.batch(shop.add("a"), auto_submit=True)
    shop.run()
    (document,) = shop.documents()
    told = shop.get(f"/v1/collections/passages/documents/{document['document_id']}/diagnostics")
    assert told["visibility_reason"]["searchable"] is True
    assert told["recent_failures"] == {"failures": [], "reason": "Its object has not failed."}
    assert told["diagnostic_history"]["entries"][0]["detail"]["run_id"].startswith("run-")
    assert shop.client.get("/v1/collections/passages/documents/doc_none/diagnostics").status_code == 404
    check = "/v1/collections/passages/documents/schema/validate"
    assert shop.post(check, {"sku": "x", "size": 3, "more": True}) == {"valid": True, "violations": []}
    wrong = shop.post(check, {"sku": 3, "size": "large"})
    assert (wrong["valid"], len(wrong["violations"])) == (False, 2)
    assert len(shop.documents()) == 1


def test_declared_indexes_are_made_when_they_are_missing(shop: Shop, warehouse: Warehouse) -> None:
    shop.client.patch("/v1/namespaces/production", json={"payload_indexes": [{"field_name": "sku", "type": "keyword"}]})

    def names() -> set[str]:
        with warehouse.catalog.reading() as records:
            found = records.connection.execute(text("SELECT name FROM sqlite_master WHERE name LIKE 'payload_%'"))
            return {row[0] for row in found}

    made = names()
    assert made
    with warehouse.catalog.transaction() as records:
        for name in made:
            records.connection.execute(text(f"DROP INDEX {name}"))
    assert shop.post("/v1/namespaces/production/ensure-indexes")["ensured"] == ["sku"]
    assert names() == made
    assert shop.post("/v1/namespaces/production/ensure-indexes?force_rebuild=true")["rebuilt"] == ["sku"]
    assert names() == made


def test_a_page_may_be_asked_for_in_the_query_and_the_body_wins(shop: Shop) -> None:
    shop.batch(shop.add("a", "b", "c"), auto_submit=True)
    shop.run()
    for route in ("/v1/documents/list", "/v1/collections/passages/documents/list"):
        first = shop.post(f"{route}?page_size=2")
        assert (len(first["results"]), first["pagination"]["limit"]) == (2, 2)
        second = shop.post(f"{route}?limit=2&page=2")
        assert len(second["results"]) == 1
        after = shop.post(f"{route}?after={first['pagination']['next_cursor']}", {"limit": 2})
        assert [one["document_id"] for one in after["results"]] == [one["document_id"] for one in second["results"]]
        assert len(shop.post(f"{route}?limit=1", {"limit": 3})["results"]) == 3
    listed = shop.get("/v1/collections/passages/documents?page_size=1&return_vectors=true")
    assert len(listed["results"]) == 1
    assert listed["results"][0]["vectors"]
    first = shop.get("/v1/events?page_size=1")
    assert shop.get(f"/v1/events?after={first['next_cursor']}&limit=1")["results"][0]["seq"] > first["results"][0]["seq"]
    (document,) = shop.documents(limit=1)
    shop.client.patch(f"/v1/documents/{document['document_id']}", json={"next": [document["document_id"], "doc_none"]})
    told = shop.get(f"/v1/documents/{document['document_id']}?expand=next")
    assert [one["document_id"] for one in told["_expanded"]["next"]] == [document["document_id"]]
    assert shop.client.get(f"/v1/documents/{document['document_id']}?expand=a..b").status_code == 422
