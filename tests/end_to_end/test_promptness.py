"""What a person waits for: things made through the API appear in Dagster, asked-for work begins, canceled work ends. In seconds."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.end_to_end.api import running_api
from tests.end_to_end.dev import Dev, graphql, running_dev
from tests.end_to_end.home import STUB, Home

pytestmark = [pytest.mark.xdist_group("dev"), pytest.mark.timeout(600)]
APPEARS_S, BEGINS_S, LEAVES_S, ENDS_S = 15.0, 10.0, 5.0, 10.0
TRIES = 3


def seconds_until(condition: Callable[[], Any], *, give_up_s: float = 120.0) -> float:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < give_up_s, f"not within {give_up_s} s"
        time.sleep(0.1)
    return time.monotonic() - started


def best_of(measure: Callable[[int], float], *, within_s: float, what: str) -> None:
    """Measure until one figure is good, and print them all. What a busy machine takes longer is allowed on top."""
    seen: list[str] = []
    for number in range(TRIES):
        took = measure(number)
        busy = 1.0 if took <= within_s else busyness()
        seen.append(f"{took:.1f}" if busy == 1.0 else f"{took:.1f} on a machine that takes {busy:.1f} times as long")
        if took <= within_s * busy:
            break
    else:
        raise AssertionError(f"{what}: {', '.join(seen)} s, not within {within_s:g} s")
    print(f"{what}: {', '.join(seen)} s (at most {within_s:g} s)")


def busyness() -> float:
    """How many times longer than its CPU time a new process takes right now: 1 on a machine that does nothing else."""
    program = "import os, time, dagster; used = os.times(); print(used.user + used.system)"
    started = time.monotonic()
    used = float(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)
    return max(1.0, (time.monotonic() - started) / used)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """An empty warehouse, and some files."""
    home = Home(tmp_path_factory.mktemp("prompt"))
    home.env["MIXPEEK_LOCAL_ROOTS"] = str(home.files)
    home.write_texts(6)
    return home


@pytest.fixture(scope="module")
def dev(home: Home) -> Iterator[Dev]:
    with running_dev(home) as dev:
        seconds_until(lambda: ticks(dev, "batches"))
        yield dev


@pytest.fixture(scope="module")
def api(home: Home, dev: Dev) -> Iterator[httpx.Client]:
    """A client in a namespace that was made after Dagster had started."""
    with running_api(home) as api:
        made = api.post("/v1/namespaces", json={"namespace_name": "prompt"}).json()
        api.headers["X-Namespace"] = made["namespace_id"]
        yield api


def ticks(dev: Dev, sensor: str) -> list[dict[str, Any]]:
    query = """query($s: SensorSelector!) { sensorOrError(sensorSelector: $s) { ... on Sensor {
        sensorState { ticks(limit: 20) { status timestamp } } } } }"""
    selector = {"repositoryLocationName": "mixpeek", "repositoryName": "__repository__", "sensorName": sensor}
    found = graphql(dev, query, s=selector)["sensorOrError"]
    return list(found["sensorState"]["ticks"]) if found else []


def assets(dev: Dev) -> dict[str, str]:
    """`kind/name` → description."""
    found = graphql(dev, "{ assetNodes { assetKey { path } description } }")["assetNodes"]
    return {"/".join(one["assetKey"]["path"][1:]): one["description"] for one in found}


def run_of(dev: Dev, batch_id: str) -> dict[str, Any] | None:
    query = (
        """query($f: RunsFilter!) { runsOrError(filter: $f) { ... on Runs { results { runId status startTime endTime } } } }"""
    )
    tags = [{"key": "mixpeek/batch", "value": batch_id}]
    found = graphql(dev, query, f={"tags": tags})["runsOrError"]["results"]
    return dict(found[0]) if found else None


def make_bucket(api: httpx.Client, name: str) -> str:
    schema = {"properties": {"content": {"type": "text"}, "path": {"type": "string"}}}
    return str(api.post("/v1/buckets", json={"bucket_name": name, "bucket_schema": schema}).json()["bucket_id"])


def make_collection(api: httpx.Client, bucket_id: str, name: str, **parameters: Any) -> str:
    extractor = {"feature_extractor_name": STUB, "version": "v1", "parameters": parameters}
    body = {"collection_name": name, "source": {"type": "bucket", "bucket_ids": [bucket_id]}, "feature_extractor": extractor}
    return str(api.post("/v1/collections", json=body).json()["collection_id"])


def submitted(api: httpx.Client, bucket_id: str, *texts: str) -> str:
    blobs = [[{"property": "content", "type": "text", "content": text}] for text in texts]
    made = [api.post(f"/v1/buckets/{bucket_id}/objects", json={"blobs": one}).json()["object_id"] for one in blobs]
    batch = api.post(f"/v1/buckets/{bucket_id}/batches", json={"object_ids": made}).json()["batch_id"]
    api.post(f"/v1/buckets/{bucket_id}/batches/{batch}/submit")
    return str(batch)


def status(api: httpx.Client, batch_id: str) -> str:
    return str(api.get(f"/v1/batches/{batch_id}").json()["status"])


def test_what_is_made_changed_and_deleted_shows_in_the_running_ui(dev: Dev, api: httpx.Client) -> None:
    def make(number: int) -> float:
        bucket_id = make_bucket(api, f"appears-{number}")
        make_collection(api, bucket_id, f"appeared-{number}")
        return seconds_until(lambda: {f"buckets/appears-{number}", f"collections/appeared-{number}"} <= assets(dev).keys())

    best_of(make, within_s=APPEARS_S, what="bucket and collection made → shown")

    def change(number: int) -> float:
        words = f"changed {number} times"
        api.patch("/v1/buckets/appears-0", json={"description": words})
        return seconds_until(lambda: assets(dev)["buckets/appears-0"] == words)

    best_of(change, within_s=APPEARS_S, what="bucket changed → shown")

    def delete(number: int) -> float:
        name = make_bucket(api, f"vanishes-{number}") and f"vanishes-{number}"
        seconds_until(lambda: f"buckets/{name}" in assets(dev))
        api.delete(f"/v1/buckets/{name}")
        return seconds_until(lambda: f"buckets/{name}" not in assets(dev))

    best_of(delete, within_s=APPEARS_S, what="bucket deleted → gone")


def test_many_changes_are_few_reloads_and_no_tick_fails(dev: Dev, api: httpx.Client) -> None:
    before = version_of_definitions(dev)
    for number in range(12):
        make_bucket(api, f"many-{number}")
        time.sleep(0.2)
    servers = [version_of_definitions(dev)]

    def is_shown() -> bool:
        servers.append(version_of_definitions(dev))
        return "buckets/many-11" in assets(dev)

    seconds_until(is_shown)
    assert len({before, *servers}) <= 4, "twelve changes in three seconds"
    for name in ("definitions", "batches", "batches_too", "webhooks", "urgent_syncs"):
        assert not [one for one in ticks(dev, name) if one["status"] == "FAILURE"], name


def version_of_definitions(dev: Dev) -> str:
    """Something that is new with every load of the location."""
    query = '{ workspaceLocationEntryOrError(name: "mixpeek") { ... on WorkspaceLocationEntry { versionKey } } }'
    return str(graphql(dev, query)["workspaceLocationEntryOrError"]["versionKey"])


def test_a_triggered_sync_begins_whatever_its_interval(home: Home, dev: Dev, api: httpx.Client) -> None:
    """One that was made a moment ago too, before it has a sensor of its own."""
    bucket_id = make_bucket(api, "follows")
    syncs = f"/v1/buckets/{bucket_id}/syncs"

    def begins(sync_id: str) -> float:
        job_id = api.post(f"{syncs}/{sync_id}/trigger").json()["sync_job_id"]
        return seconds_until(lambda: api.get(f"{syncs}/{sync_id}/jobs/{job_id}").json()["started_at"])

    def new(number: int) -> float:
        config = {"source_path": str(home.files), "polling_interval": 86_400}
        made = api.post(syncs, json={"provider": "local", "sync_config": config}).json()["sync_config_id"]
        made_ids.append(made)
        return begins(made)

    made_ids: list[str] = []
    best_of(new, within_s=BEGINS_S, what="sync made and triggered → its pass began")
    sensor = f"sync_prompt_follows_{made_ids[0][-6:]}"
    shown = seconds_until(lambda: ticks(dev, sensor))
    print(f"its own sensor ticks {shown:.1f} s later")
    best_of(lambda _: begins(made_ids[0]), within_s=BEGINS_S, what="sync triggered again → its pass began")


def test_a_submitted_batch_leaves_the_queue(dev: Dev, api: httpx.Client) -> None:
    bucket_id = make_bucket(api, "queue")
    make_collection(api, bucket_id, "queued")
    seconds_until(lambda: "collections/queued" in assets(dev))

    def leaves(number: int) -> float:
        time.sleep(2.5 * number)  # out of step with the daemon's five seconds
        batch_id = submitted(api, bucket_id, f"text {number}")
        return seconds_until(lambda: status(api, batch_id) != "QUEUED")

    best_of(leaves, within_s=LEAVES_S, what="batch submitted → it left QUEUED")
    first = submitted(api, bucket_id, "one")
    seconds_until(lambda: run_of(dev, first))
    best_of(lambda number: leaves(0), within_s=LEAVES_S, what="another one right after it → it left QUEUED")


def test_a_canceled_batch_ends_its_run(dev: Dev, api: httpx.Client) -> None:
    bucket_id = make_bucket(api, "cancel")
    make_collection(api, bucket_id, "slow", sleep_s=3.0)
    seconds_until(lambda: "collections/slow" in assets(dev))

    def ends(number: int) -> float:
        batch_id = submitted(api, bucket_id, *[f"{number} {one}" for one in range(200)])
        seconds_until(lambda: status(api, batch_id) == "PROCESSING")
        api.post(f"/v1/batches/{batch_id}/cancel")
        took = seconds_until(lambda: (run_of(dev, batch_id) or {}).get("status") in ("CANCELED", "FAILURE", "SUCCESS"))
        assert (run_of(dev, batch_id) or {})["status"] == "CANCELED"
        assert status(api, batch_id) == "CANCELED"
        return took

    best_of(ends, within_s=ENDS_S, what="batch canceled → its run is CANCELED")
