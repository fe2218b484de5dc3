"""Health: who may ask, and that a broken part is named."""

from fastapi.testclient import TestClient

from mixpeek_dagster.pipeline.health import UNCLAIMED_S
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.storage.managed import LocalBlobs
from tests.api.running import Shop, shop

__all__ = ["shop"]


def test_everybody_may_ask_whether_the_server_lives_but_not_how_its_parts_are(client: TestClient) -> None:
    del client.headers["Authorization"]
    for path in ("", "/liveness", "/readiness", "/beat"):
        assert client.get(f"/v1/health{path}").json() == {"status": "OK"}
    assert client.get("/v1/health/deep").status_code == 401


def test_a_part_that_works_says_so_and_one_that_does_not_is_named(shop: Shop, warehouse: Warehouse, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    well = shop.get("/v1/health/deep")
    assert (well["status"], set(well["data"].values()), well["errors"]) == ("OK", {True}, None)

    def broken(self: LocalBlobs, key: str) -> None:
        raise PermissionError(key)

    monkeypatch.setattr(LocalBlobs, "head", broken)
    ill = shop.get("/v1/health/deep")
    assert (ill["status"], ill["data"]["object_storage"], ill["data"]["metadata"]) == ("DEGRADED", False, True)
    assert ill["errors"] == {"object_storage": "PermissionError"}


def test_a_queue_that_nobody_serves_is_told(shop: Shop, warehouse: Warehouse) -> None:
    batch = shop.batch(shop.add("a"), auto_submit=True)
    assert shop.get("/v1/health/deep")["data"]["task_queue"] is True
    with warehouse.catalog.transaction() as records:
        long_ago = warehouse.now(plus_s=-UNCLAIMED_S - 60)
        records.batches.set(batch["batch_id"], now=long_ago, submitted_at=long_ago)
    assert "no run has taken a batch" in shop.get("/v1/health/deep")["errors"]["task_queue"]
    shop.run()
    assert shop.get("/v1/health/deep")["status"] == "OK"
