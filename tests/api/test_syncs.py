"""Syncs through the API: a dry run before a pass, a word for what is held back, runs that wait for one another."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mixpeek_dagster.models.ids import SyncId
from mixpeek_dagster.pipeline.creation import create_sync
from mixpeek_dagster.pipeline.syncs import advance
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.testing import FakeSource, FakeWorld
from tests.pipeline.worlds import FAKE, NOW, STUB


class Sync:
    """A sync of a bucket over a source in memory, and requests about it."""

    def __init__(self, client: TestClient, warehouse: Warehouse, bucket: dict[str, Any]) -> None:
        self.client, self.warehouse, self.world = client, warehouse, FakeSource.worlds.setdefault("api", FakeWorld())
        body = {"provider": FAKE, "connection": {"world": "api"}, "sync_config": {"source_path": "/"}}
        with warehouse.catalog.transaction() as records:
            found = records.buckets.get(bucket["bucket_id"], namespace_id=bucket["namespace_id"])
            self.sync_id = create_sync(records, body, warehouse=warehouse, bucket=found, now=NOW).sync_id
        self.path = f"/v1/buckets/{bucket['bucket_id']}/syncs/{self.sync_id}"

    def post(self, action: str, *, status: int = 200) -> dict[str, Any]:
        response = self.client.post(f"{self.path}/{action}")
        assert response.status_code == status, response.text
        return dict(response.json())

    def patch(self, body: dict[str, Any], *, status: int = 200) -> dict[str, Any]:
        response = self.client.patch(self.path, json=body)
        assert response.status_code == status, response.text
        return dict(response.json())

    def get(self) -> dict[str, Any]:
        return dict(self.client.get(self.path).json())

    def fill(self, count: int) -> None:
        for number in range(count):
            self.world.put(f"f{number:03d}.txt", b"12345")

    def run(self) -> Any:
        return advance(self.warehouse, SyncId(self.sync_id), budget_s=20, force=False)


@pytest.fixture
def sync(client: TestClient, warehouse: Warehouse, bucket: dict[str, Any]) -> Iterator[Sync]:
    FakeSource.worlds.clear()
    yield Sync(client, warehouse, bucket)
    FakeSource.worlds.clear()


def test_a_dry_run_says_what_a_pass_would_do_and_makes_none(sync: Sync) -> None:
    sync.fill(3)
    answer = sync.post("trigger?dry_run=true")
    assert (answer["counters"]["new"], answer["to_extract"], answer["bytes_to_read"], answer["is_complete"]) == (3, 3, 15, True)
    assert (answer["sync_config_id"], answer["sync_job_id"], answer["status"]) == (sync.sync_id, None, "planned")
    assert sync.get()["total_files_discovered"] == 0
    assert sync.client.get(f"{sync.path}/jobs").json()["total"] == 0


@pytest.mark.parametrize("under_way", [False, True])
def test_a_dry_run_of_a_full_sync_says_what_that_would_do(sync: Sync, under_way: bool) -> None:
    sync.fill(4)
    assert sync.run().finished
    sync.world.page_size = 1
    if under_way:
        sync.post("trigger")
        assert not advance(sync.warehouse, SyncId(sync.sync_id), budget_s=0).finished  # type: ignore[union-attr]
    with sync.warehouse.catalog.transaction() as records:
        ids = records.objects.ids_in_bucket(records.syncs.get(sync.sync_id).bucket_id)
        records.objects.remove(ids)  # an idle pass does not look whether a key's object is there
    assert sync.post("trigger?dry_run=true")["counters"]["new"] == 0
    planned = sync.post("trigger?dry_run=true&full_sync=true")
    assert (planned["counters"]["new"], planned["full_sync"]) == (4, True)
    sync.post("trigger?full_sync=true")
    new = 0
    while (progress := sync.run()) is not None:
        new += progress.counters.new if progress.finished else 0
    assert new == 4


def test_held_deletes_are_confirmed_through_the_api(sync: Sync) -> None:
    sync.fill(300)
    assert sync.run().finished
    for number in range(200):
        sync.world.delete(f"f{number:03d}.txt")
    assert "200 deletes are more than the guard believes" in sync.post("trigger?dry_run=true")["message"]
    sync.post("confirm", status=400)  # no pass has held anything back yet
    sync.post("trigger")
    assert sync.run().counters.held == 200
    assert "nothing was deleted" in sync.get()["last_error"]
    answer = sync.post("confirm")
    assert answer["sync_job_id"]
    assert sync.run().counters.deleted == 200
    job = sync.client.get(f"{sync.path}/jobs/{answer['sync_job_id']}").json()
    assert (job["status"], job["progress"]["deleted"]) == ("completed", 200)


def test_a_full_sync_waits_behind_the_pass_that_runs(sync: Sync) -> None:
    sync.fill(10)
    sync.world.page_size = 2
    assert not advance(sync.warehouse, SyncId(sync.sync_id), budget_s=0).finished  # type: ignore[union-attr]
    first = sync.get()["current_sync_run_id"]
    queued = sync.post("trigger?full_sync=true")["sync_job_id"]
    assert sync.post("trigger?full_sync=true")["sync_job_id"] == queued, "asked for twice, it is one"
    assert sync.get()["pending_full_sync"]
    while not sync.run().finished:
        pass
    assert sync.client.get(f"{sync.path}/jobs/{first}").json()["status"] == "completed"
    assert sync.client.get(f"{sync.path}/jobs/{queued}").json()["started_at"] is None
    assert sync.run().finished, "it follows at once, whatever the interval"
    job = sync.client.get(f"{sync.path}/jobs/{queued}").json()
    assert (job["status"], job["total_files"]) == ("completed", 10)
    assert not sync.get()["pending_full_sync"]
    assert sync.run() is None


def test_dead_letters_of_extraction_are_listed_requeued_and_given_up(sync: Sync) -> None:
    sync.fill(4)
    assert sync.run().finished
    with sync.warehouse.catalog.transaction() as records:
        ids = records.objects.ids_in_bucket(records.syncs.get(sync.sync_id).bucket_id)
        errors = {ids[0]: "cannot be read", ids[1]: "cannot be read"}
        records.objects.fail(errors, hopeless=errors, now=NOW)
    answer = sync.post("dlq")
    assert (answer["total"], answer["pagination"]["total"]) == (2, 2)
    (letter, _) = answer["results"]
    assert {name: letter[name] for name in ("error_type", "error_message", "retry_count", "object_id", "source_path")} == {
        "error_type": "extraction_failed",
        "error_message": "cannot be read",
        "retry_count": 3,
        "object_id": letter["object_id"],
        "source_path": letter["source_object_id"],
    }
    assert [len(sync.post(f"dlq?limit=1&offset={number}")["results"]) for number in range(3)] == [1, 1, 0]
    assert sync.client.get(f"{sync.path}/metrics").json()["dlq_by_error"] == {"extraction_failed": 2}
    none = sync.client.post(f"{sync.path}/dlq/requeue", json={"error_types": ["schema_violation"]}).json()
    assert none == {"requeued": 0}
    assert sync.post("dlq/requeue") == {"requeued": 2}
    assert sync.post("dlq")["total"] == 0
    with sync.warehouse.catalog.transaction() as records:
        records.objects.fail(errors, hopeless=errors, now=NOW)
    done = sync.client.post(f"{sync.path}/dlq/bulk-mark-failed", json={"error_types": ["extraction_failed"]}).json()
    assert done == {"updated": 2}
    assert sync.post("dlq")["total"] == 0


BESIDE = {
    "file_filters": {"include_patterns": ["*.jpg"]},
    "reconcile": {"on_delete": False},
    "max_objects_per_run": 5,
    "batch_chunk_size": 7,
    "metadata": {"a": 1},
    "description": "pictures",
}


@pytest.mark.parametrize("beside", [True, False], ids=["beside sync_config", "inside it"])
@pytest.mark.parametrize("form", ["provider", "connection_id"])
def test_what_is_said_of_a_sync_holds_wherever_it_is_said(sync: Sync, form: str, beside: bool) -> None:
    place = (
        {"provider": FAKE, "connection": {"world": "api"}}
        if form == "provider"
        else {"connection_id": sync.get()["connection_id"]}
    )
    config = {"source_path": "/p/", "polling_interval": 60}
    body = {**place, **BESIDE, "sync_config": config} if beside else {**place, "sync_config": {**BESIDE, **config}}
    answer = sync.client.post(sync.path.rpartition("/")[0], json=body)
    assert answer.status_code == 200, answer.text
    made = answer.json()
    assert {name: made[name] for name in BESIDE} == {**BESIDE, "reconcile": {**made["reconcile"], "on_delete": False}}
    assert (made["source_path"], made["polling_interval_seconds"]) == ("/p/", 60)


@pytest.mark.parametrize("name", ["batch_size", "batch_chunk_size"])
def test_batches_are_as_long_as_was_said_in_the_words_of_the_sdk_or_ours(sync: Sync, name: str) -> None:
    place = {"provider": FAKE, "connection": {"world": "api"}, "sync_config": {"source_path": "/"}}
    made = sync.client.post(sync.path.rpartition("/")[0], json={**place, name: 9}).json()
    assert (made["batch_size"], made["batch_chunk_size"]) == (9, 9)
    changed = sync.patch({name: 2})
    assert (changed["batch_size"], changed["batch_chunk_size"]) == (2, 2)
    sync.fill(5)
    assert sync.run().finished
    with sync.warehouse.catalog.reading() as records:
        assert sorted(one.item_count for one in records.batches.page(limit=10)[0]) == [1, 2, 2]


def test_one_word_about_reconciling_leaves_the_others(sync: Sync) -> None:
    sync.patch({"reconcile": {"on_delete": False}})
    changed = sync.patch({"reconcile": {"on_update": False, "on_filter_drift": None}})
    assert changed["reconcile"] == {"on_delete": False, "on_update": False, "on_filter_drift": True, "re_extract_on_update": True}


@pytest.mark.parametrize("word", ["include", "include_patterns"])
def test_patterns_hold_without_file_filters_around_them(sync: Sync, word: str) -> None:
    place = {"provider": FAKE, "connection": {"world": "api"}, "sync_config": {"source_path": "/"}}
    made = sync.client.post(sync.path.rpartition("/")[0], json={**place, word: ["*.jpg"]}).json()
    assert made["file_filters"] == {"include_patterns": ["*.jpg"]}
    sync.fill(2)
    sync.world.put("a.md", b"12345")
    sync.patch({"file_filters": {"extensions": ["md"]}})
    changed = sync.patch({word: ["f*", "a*"]})
    filters = {name: value for name, value in changed["file_filters"].items() if value}
    assert filters == {"include_patterns": ["f*", "a*"], "extensions": ["md"]}, "it leaves the other filters"
    assert sync.run().counters.new == 1


def test_a_collection_above_is_not_chosen_without_the_one_below(sync: Sync) -> None:
    stub = {"feature_extractor_name": STUB, "input_mappings": {"text": "product_text"}}

    def collection(name: str, **source: Any) -> str:
        body = {"collection_name": name, "source": source, "feature_extractor": stub}
        return str(sync.client.post("/v1/collections", json=body).json()["collection_id"])

    below = collection("below", type="bucket", bucket_ids=[sync.get()["bucket_id"]])
    above = collection("above", type="collection", collection_ids=[below])
    path = sync.path.rpartition("/")[0]
    place = {"provider": FAKE, "connection": {"world": "api"}, "sync_config": {"source_path": "/"}}
    for chosen, status, words in (([above], 400, "name that too"), (["nothing"], 404, "nothing")):
        answer = sync.client.post(path, json={**place, "batch_collection_ids": chosen})
        assert (answer.status_code, words in answer.json()["error"]["message"]) == (status, True), answer.text
        sync.patch({"batch_collection_ids": chosen}, status=status)
    assert sync.client.get(path).json()["total"] == 1, "nothing was made of what was refused"
    assert sync.patch({"batch_collection_ids": ["below", above]})["batch_collection_ids"] == [below, above]
    sync.fill(1)
    assert sync.run().error is None
    with sync.warehouse.catalog.reading() as records:
        assert records.batches.page(limit=10)[0][0].collection_ids == [below, above]


CHOOSING = {"ingest_filter": {"retriever_id": "ret_1"}, "provider_filters": {"label": "x"}}


@pytest.mark.parametrize("name", sorted(CHOOSING))
def test_what_would_choose_files_is_refused_where_it_cannot(sync: Sync, name: str) -> None:
    place = {"provider": FAKE, "connection": {"world": "api"}, "sync_config": {"source_path": "/"}}
    path = sync.path.rpartition("/")[0]
    before = sync.get()
    for body in ({**place, name: CHOOSING[name]}, {**place, "sync_config": {"source_path": "/", name: CHOOSING[name]}}):
        answer = sync.client.post(path, json=body)
        assert (answer.status_code, f"{name} is not supported" in answer.text) == (422, True), answer.text
    assert f"{name} is not supported" in str(sync.patch({name: CHOOSING[name]}, status=422))
    assert sync.patch({name: {}, "sync_concurrency": 4})["status"] == before["status"], "an empty one chooses every file"
    assert sync.client.get(path).json()["total"] == 1
