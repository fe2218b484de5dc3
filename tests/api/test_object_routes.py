"""Objects in bulk: taken out without being deleted, and aggregated."""

from typing import Any

from mixpeek_dagster.pipeline.verification import verify
from mixpeek_dagster.pipeline.warehouse import Warehouse
from tests.api.running import Shop, shop

__all__ = ["shop"]


def test_disabled_objects_stay_but_nothing_is_made_of_them(shop: Shop, warehouse: Warehouse) -> None:
    shop.collection("above", {"type": "collection", "collection_ids": [shop.collection_id]}, field_passthrough=[])
    gone, kept = shop.add("a", "b")
    shop.batch([gone, kept], auto_submit=True)
    shop.run()
    objects = f"/v1/buckets/{shop.bucket_id}/objects"
    body = {"object_ids": [gone, "obj_elsewhere"], "reason": "not licensed"}
    done = shop.post(f"{objects}/bulk-soft-delete", body)
    assert done == {"soft_deleted": 1, "requested": 2, "collections": 1}
    assert {one["_internal"]["lineage"]["root_object_id"] for one in shop.documents()} == {kept}
    assert shop.get("/v1/collections/passages")["document_count"] == 1
    assert shop.get(f"{objects}/{gone}")["lifecycle_state"] == "disabled"
    listed = {one["object_id"]: one["lifecycle_state"] for one in shop.get(objects)["results"]}
    assert listed == {gone: "disabled", kept: "active"}
    assert shop.get("/v1/buckets/shop")["object_count"] == 2

    again = shop.batch([gone], auto_submit=True)
    shop.run()
    assert shop.get(f"/v1/batches/{again['batch_id']}")["progress"]["objects_skipped"] == 1
    assert shop.post("/v1/collections/passages/trigger", {}, status=202)["object_count"] == 1
    shop.run()
    assert {one["_internal"]["lineage"]["root_object_id"] for one in shop.documents()} == {kept}

    assert all(check.ok for check in verify(warehouse)), "what is disabled is not missing"

    shop.post(f"{objects}/bulk-soft-delete", {**body, "lifecycle_state": "active"})
    assert shop.get(f"{objects}/{gone}")["lifecycle_state"] == "active"
    shop.batch([gone], auto_submit=True)
    shop.run()
    assert gone in {one["_internal"]["lineage"]["root_object_id"] for one in shop.documents()}


def test_a_disabled_object_can_still_be_deleted(shop: Shop) -> None:
    (gone,) = shop.add("a")
    objects = f"/v1/buckets/{shop.bucket_id}/objects"
    shop.post(f"{objects}/bulk-soft-delete", {"object_ids": [gone], "reason": "r"})
    assert shop.client.delete(f"{objects}/{gone}").status_code == 204
    wrong: list[dict[str, Any]] = [{"object_ids": []}, {"object_ids": [gone]}]
    for body in (*wrong, {"object_ids": [gone], "reason": "r", "lifecycle_state": "x"}):
        assert shop.client.post(f"{objects}/bulk-soft-delete", json=body).status_code == 422, body


def test_objects_are_aggregated_in_the_database_and_by_reading(shop: Shop) -> None:
    for sku, price in (("a", 1), ("a", 3), ("b", 5)):
        shop.add(sku, price=price, tags=[sku, "all"], day=f"2026-0{price}-01T00:00:00Z")
    route = f"/v1/buckets/{shop.bucket_id}/objects/aggregate"
    sums: dict[str, Any] = {"aggregations": [{"function": "sum", "field": "price", "alias": "sum"}]}
    by_sku = shop.post(route, {**sums, "group_by": [{"field": "metadata.sku", "alias": "sku"}]})
    assert by_sku["results"] == [
        {"group": {"sku": "b"}, "metrics": {"sum": 5}},
        {"group": {"sku": "a"}, "metrics": {"sum": 4}},
    ]
    assert (by_sku["total_groups"], by_sku["query_info"]["in_database"]) == (2, True)
    few = {"AND": [{"field": "metadata.price", "operator": "gte", "value": 3}]}
    by_month = shop.post(route, {**sums, "filters": few, "group_by": [{"field": "day", "date_part": "month", "alias": "m"}]})
    assert [(one["group"]["m"], one["metrics"]["sum"]) for one in by_month["results"]] == [(5, 5), (3, 3)]
    tags = shop.post(route, {**sums, "unwind": "tags", "group_by": [{"field": "tags"}], "limit": 1})
    assert tags["results"] == [{"group": {"tags": "all"}, "metrics": {"sum": 9}}]
    assert tags["query_info"]["in_database"] is False
    by_status = shop.post(route, {"aggregations": [{"function": "count", "alias": "n"}], "group_by": [{"field": "status"}]})
    assert by_status["results"] == [{"group": {"status": "PENDING"}, "metrics": {"n": 3}}]
    assert shop.client.post(route, json={"aggregations": [{"function": "sum", "alias": "x"}]}).status_code == 422
