"""What a sync says about a pass it has made."""

from pathlib import Path

from fastapi.testclient import TestClient

from mixpeek_dagster.api import create_app
from mixpeek_dagster.models.ids import SyncId
from mixpeek_dagster.pipeline.keys import create_key
from mixpeek_dagster.pipeline.syncs import advance
from tests.api.conftest import open_warehouse


def test_a_pass_is_told_in_stats_jobs_and_metrics(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    for name in ("a.txt", "b.txt", "c.jpg"):
        (place / name).write_bytes(b"12345")
    warehouse = open_warehouse(tmp_path / "home", local_roots=(place,))
    with TestClient(create_app(warehouse)) as client:
        client.headers["Authorization"] = f"Bearer {create_key(warehouse, name='test').token}"
        client.headers["X-Namespace"] = client.post("/v1/namespaces", json={"namespace_name": "own"}).json()["namespace_id"]
        schema = {"properties": {"content": {"type": "text"}}}
        client.post("/v1/buckets", json={"bucket_name": "texts", "bucket_schema": schema}).raise_for_status()
        filters = {"include_patterns": ["*.txt"]}
        body = {"provider": "local", "connection": {}, "sync_config": {"source_path": str(place), "file_filters": filters}}
        made = client.post("/v1/buckets/texts/syncs", json=body).json()
        assert made["stats"]["last_run_at"] is None
        while (progress := advance(warehouse, SyncId(made["sync_id"]), budget_s=20)) is not None and not progress.finished:
            pass
        route = f"/v1/buckets/texts/syncs/{made['sync_id']}"
        told = client.get(route).json()
        stats = told["stats"]
        assert (stats["last_run_objects_discovered"], stats["last_run_objects_synced"]) == (3, 2)
        assert (stats["last_run_objects_skipped"], stats["last_run_bytes_synced"]) == (1, 10)
        assert stats["last_run_avg_object_size_bytes"] == 5
        assert stats["last_run_at"] == told["last_sync_at"]
        (job,) = client.get(f"{route}/jobs").json()["results"]
        assert (job["status"], job["files_synced"], job["files_verified"]) == ("completed", 2, 0)
        assert job["throughput_files_per_min"] == stats["last_run_throughput_objects_per_min"] > 0
        metrics = client.get(f"{route}/metrics").json()
        assert (metrics["total_files_synced"], metrics["healthy"], metrics["running_job"]) == (2, True, False)
    warehouse.close()
