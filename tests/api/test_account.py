"""Who is calling, what is held, what was done; and looking into the place of a connection."""

import os
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mixpeek_dagster.api import create_app
from mixpeek_dagster.pipeline.keys import create_key
from mixpeek_dagster.pipeline.warehouse import Warehouse
from tests.api.conftest import open_warehouse
from tests.api.running import Shop, shop

__all__ = ["shop"]


def test_a_key_is_told_who_it_is(shop: Shop, warehouse: Warehouse) -> None:
    assert shop.get("/v1/me")["key"]["name"] == "test"
    assert shop.get("/v1/me")["rate_limits"] == {"rest": 60_000}
    own = shop.get("/v1/namespaces/production")["namespace_id"]
    shop.client.headers["Authorization"] = f"Bearer {create_key(warehouse, name='small', namespace='production').token}"
    assert shop.get("/v1/me")["key"]["namespace_id"] == own
    assert shop.client.get("/v1/organizations/usage").status_code == 403


def test_usage_counts_what_is_held_and_what_was_done(shop: Shop) -> None:
    shop.batch(shop.add("a", "b"), auto_submit=True)
    shop.run()
    shop.batch(shop.add("c"))
    told = shop.get("/v1/organizations/usage")
    held = {name: told[name] for name in ("namespaces", "buckets", "collections", "objects", "documents")}
    assert held == {"namespaces": 1, "buckets": 1, "collections": 1, "objects": 3, "documents": 2}
    assert (told["batches_completed"], told["objects_processed"], told["documents_written"]) == (1, 2, 2)
    before = shop.get("/v1/organizations/usage?start=2020-01-01T00:00:00Z&end=2020-02-01T00:00:00Z")
    assert (before["batches_completed"], before["objects"]) == (0, 3)
    summary = shop.get("/v1/analytics/usage/summary")
    assert {one["operation_type"]: one["count"] for one in summary["usage"]}["documents_written"] == 2
    for query in ("start=yesterday", "start=2026-01-01T00:00:00", "start=2020-02-01T00:00:00Z&end=2020-01-01T00:00:00Z"):
        assert shop.client.get(f"/v1/organizations/usage?{query}").status_code == 422, query


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A folder tree that a connection may read."""
    root = tmp_path / "archive"
    for name in ("readme.txt", "videos/a.mp4", "videos/deep/b.mp4", "audio/c.wav"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"12345")
    os.utime(root / "readme.txt", (1_700_000_000, 1_700_000_000))
    return root


def test_a_connection_is_looked_into_folder_by_folder(tmp_path: Path, archive: Path) -> None:
    warehouse = open_warehouse(tmp_path / "home", local_roots=(archive,))
    with TestClient(create_app(warehouse)) as client:
        client.headers["Authorization"] = f"Bearer {create_key(warehouse, name='test').token}"
        body: dict[str, Any] = {"name": "disk", "provider_type": "local", "provider_config": {}, "test_before_save": False}
        client.post("/v1/organizations/connections", json=body).raise_for_status()
        at = "/v1/organizations/connections/disk"
        top = client.get(f"{at}/folders", params={"path": str(archive)}).json()
        assert [(one["name"], one["path"]) for one in top["results"]] == [
            ("audio", f"{archive}/audio"),
            ("videos", f"{archive}/videos"),
        ]
        assert top["truncated"] is False
        files = client.get(f"{at}/files", params={"path": str(archive)}).json()
        assert [(one["name"], one["size_bytes"]) for one in files["results"]] == [("readme.txt", 5)]
        assert files["results"][0]["modified_at"] == "2023-11-14T22:13:20.000000Z"
        below = client.get(f"{at}/files", params={"path": top["results"][1]["path"]}).json()
        assert [one["name"] for one in below["results"]] == ["a.mp4"]
        assert client.get(f"{at}/folders", params={"path": "/etc"}).status_code in (400, 403, 422)
        assert client.get(f"{at}/files?max_results=0").status_code == 422
        assert client.get("/v1/organizations/connections/none/folders").status_code == 404
        assert client.patch(at, json={"status": "SUSPENDED"}).json()["is_active"] is False
        assert client.patch(at, json={"status": "BROKEN"}).status_code == 422
    warehouse.close()
