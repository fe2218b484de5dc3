"""What a person waits for, in seconds: things made through the API appear in Dagster, asked-for work begins, canceled work ends."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.end_to_end.api import running_api
from tests.end_to_end.dev import Dev, graphql, running_dev
from tests.end_to_end.home import STUB, Home
from tests.waiting import until


def seconds_until(condition: Callable[[], Any]) -> float:
    started = time.monotonic()
    until(condition, every_s=0.1)
    return time.monotonic() - started


class Desk:
    """An empty warehouse with Dagster and the API running, and a namespace that was made after Dagster had started."""

    def __init__(self, home: Home, dev: Dev, api: httpx.Client) -> None:
        self.home, self.dev, self.api = home, dev, api

    # What a person sees

    def ticks(self, sensor: str) -> list[dict[str, Any]]:
        query = """query($s: SensorSelector!) { sensorOrError(sensorSelector: $s) { ... on Sensor {
            sensorState { ticks(limit: 20) { status timestamp } } } } }"""
        selector = {"repositoryLocationName": "mixpeek", "repositoryName": "__repository__", "sensorName": sensor}
        found = graphql(self.dev, query, s=selector)["sensorOrError"]
        return list(found["sensorState"]["ticks"]) if found else []

    def assets(self) -> dict[str, str]:
        """`kind/name` → description."""
        found = graphql(self.dev, "{ assetNodes { assetKey { path } description } }")["assetNodes"]
        return {"/".join(one["assetKey"]["path"][1:]): one["description"] for one in found}

    def version_of_definitions(self) -> str:
        """Something that is new with every load of the location."""
        query = '{ workspaceLocationEntryOrError(name: "mixpeek") { ... on WorkspaceLocationEntry { versionKey } } }'
        return str(graphql(self.dev, query)["workspaceLocationEntryOrError"]["versionKey"])

    def run_of(self, batch_id: str) -> dict[str, Any]:
        query = "query($f: RunsFilter!) { runsOrError(filter: $f) { ... on Runs { results { runId status } } } }"
        tags = [{"key": "mixpeek/batch", "value": batch_id}]
        found = graphql(self.dev, query, f={"tags": tags})["runsOrError"]["results"]
        return dict(found[0]) if found else {}

    def status(self, batch_id: str) -> str:
        return str(self.api.get(f"/v1/batches/{batch_id}").json()["status"])

    # What a person makes

    def bucket(self, name: str) -> str:
        schema = {"properties": {"content": {"type": "text"}, "path": {"type": "string"}}}
        return str(self.api.post("/v1/buckets", json={"bucket_name": name, "bucket_schema": schema}).json()["bucket_id"])

    def collection(self, bucket_id: str, name: str, **parameters: Any) -> str:
        extractor = {"feature_extractor_name": STUB, "version": "v1", "parameters": parameters}
        source = {"type": "bucket", "bucket_ids": [bucket_id]}
        body = {"collection_name": name, "source": source, "feature_extractor": extractor}
        return str(self.api.post("/v1/collections", json=body).json()["collection_id"])

    def sync(self, bucket_id: str) -> str:
        """One whose turn comes once a day."""
        config = {"source_path": str(self.home.files), "polling_interval": 86_400}
        made = self.api.post(f"/v1/buckets/{bucket_id}/syncs", json={"provider": "local", "sync_config": config})
        return str(made.json()["sync_config_id"])

    def submitted(self, bucket_id: str, *texts: str) -> str:
        blobs = [[{"property": "content", "type": "text", "content": text}] for text in texts]
        made = [self.api.post(f"/v1/buckets/{bucket_id}/objects", json={"blobs": one}).json()["object_id"] for one in blobs]
        batch = self.api.post(f"/v1/buckets/{bucket_id}/batches", json={"object_ids": made}).json()["batch_id"]
        self.api.post(f"/v1/buckets/{bucket_id}/batches/{batch}/submit")
        return str(batch)

    # What a person waits for

    def made_until_shown(self, name: str) -> float:
        """For a bucket and a collection over it, of the same name."""
        self.collection(self.bucket(name), name)
        return seconds_until(lambda: {f"buckets/{name}", f"collections/{name}"} <= self.assets().keys())

    def changed_until_shown(self, bucket: str, words: str) -> float:
        self.api.patch(f"/v1/buckets/{bucket}", json={"description": words})
        return seconds_until(lambda: self.assets()[f"buckets/{bucket}"] == words)

    def deleted_until_gone(self, bucket: str) -> float:
        self.api.delete(f"/v1/buckets/{bucket}")
        return seconds_until(lambda: f"buckets/{bucket}" not in self.assets())

    def triggered_until_begun(self, bucket_id: str, sync_id: str) -> float:
        sync = f"/v1/buckets/{bucket_id}/syncs/{sync_id}"
        job_id = self.api.post(f"{sync}/trigger").json()["sync_job_id"]
        return seconds_until(lambda: self.api.get(f"{sync}/jobs/{job_id}").json()["started_at"])

    def submitted_until_taken(self, bucket_id: str, text: str) -> float:
        batch_id = self.submitted(bucket_id, text)
        return seconds_until(lambda: self.status(batch_id) != "QUEUED")

    def canceled_until_ended(self, bucket_id: str, *texts: str) -> float:
        """Its run is canceled too."""
        batch_id = self.submitted(bucket_id, *texts)
        seconds_until(lambda: self.status(batch_id) == "PROCESSING")
        self.api.post(f"/v1/batches/{batch_id}/cancel")
        took = seconds_until(lambda: self.run_of(batch_id).get("status") in ("CANCELED", "FAILURE", "SUCCESS"))
        assert (self.run_of(batch_id)["status"], self.status(batch_id)) == ("CANCELED", "CANCELED")
        return took


@contextmanager
def running_desk(home: Home) -> Iterator[Desk]:
    home.env["MIXPEEK_LOCAL_ROOTS"] = str(home.files)
    home.write_texts(6)
    with running_dev(home) as dev, running_api(home) as api:
        desk = Desk(home, dev, api)
        seconds_until(lambda: desk.ticks("batches"))
        api.headers["X-Namespace"] = api.post("/v1/namespaces", json={"namespace_name": "prompt"}).json()["namespace_id"]
        yield desk
