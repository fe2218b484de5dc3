"""Sixty-four clients at once write and list, on each database: nothing fails, nothing is lost.

A short form runs with the suite; `MIXPEEK_SOAK_SECONDS=120` is the long one.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mixpeek_dagster.models.documents import Document
from mixpeek_dagster.models.ids import BatchId, CollectionId, NamespaceId
from tests.catalog.worlds import document
from tests.end_to_end.home import STUB, Home
from tests.pipeline.worlds import emptied
from tests.serving import Caller, serving

CLIENTS = 64
SECONDS = float(os.environ.get("MIXPEEK_SOAK_SECONDS", "15"))
SCHEMA = {"properties": {"content": {"type": "text"}, "sku": {"type": "string"}}}

pytestmark = pytest.mark.timeout(SECONDS + 240)


@pytest.fixture(params=["sqlite", "postgres"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    made = Home(tmp_path)
    if request.param == "postgres":
        made.env["MIXPEEK_CATALOG_URL"] = emptied(request.getfixturevalue("postgres_url"))
    return made


@dataclass
class Client:
    """One client: what it asks for, and what it was told is done."""

    number: int
    caller: Caller
    bucket_id: str
    documents: list[str]
    objects: list[str] = field(default_factory=list)
    batches: dict[str, set[str]] = field(default_factory=dict)
    buckets: list[str] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)
    slowest: float = 0.0
    failures: list[str] = field(default_factory=list)

    def run(self, until: float) -> None:
        rng = random.Random(self.number)
        steps: list[Callable[[random.Random], None]] = [
            self._object,
            self._objects,
            self._batch,
            self._bucket,
            self._patch,
            self._list,
        ]
        while time.monotonic() < until:
            rng.choices(steps, weights=[6, 2, 2, 1, 4, 5])[0](rng)
        self.caller.close()

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        started = time.monotonic()
        status, answer = self.caller.send(method, path, body)
        self.slowest = max(self.slowest, time.monotonic() - started)
        self.statuses[status] += 1
        if status >= 300:
            self.failures.append(f"{status} {method} {path}: {str(answer)[:300]}")
        return answer if status < 300 else None

    def _new(self, rng: random.Random) -> dict[str, Any]:
        text = f"{self.number}-{rng.random()}"
        return {"blobs": [{"property": "content", "type": "text", "content": text}], "sku": text}

    def _object(self, rng: random.Random) -> None:
        if made := self._ask("POST", f"/v1/buckets/{self.bucket_id}/objects", self._new(rng)):
            self.objects.append(made["object_id"])

    def _objects(self, rng: random.Random) -> None:
        body = {"objects": [self._new(rng) for _ in range(10)]}
        if made := self._ask("POST", f"/v1/buckets/{self.bucket_id}/objects/batch", body):
            self.objects += [one["object_id"] for one in made["succeeded"]]

    def _batch(self, rng: random.Random) -> None:
        if not self.objects:
            return
        chosen = rng.sample(self.objects, min(5, len(self.objects)))
        path = f"/v1/buckets/{self.bucket_id}/batches"
        if made := self._ask("POST", path, {"object_ids": chosen}):
            self.batches[made["batch_id"]] = set(chosen)
            self._ask("POST", f"{path}/{made['batch_id']}/submit?force=true", {})  # two batches may hold one object

    def _bucket(self, rng: random.Random) -> None:
        body = {"bucket_name": f"b{self.number}-{rng.randrange(10**12)}", "bucket_schema": SCHEMA}
        if made := self._ask("POST", "/v1/buckets", body):
            self.buckets.append(made["bucket_id"])
            self._ask("PATCH", f"/v1/buckets/{made['bucket_id']}", {"description": "changed"})

    def _patch(self, rng: random.Random) -> None:
        chosen = rng.choice(self.documents)
        version = self.versions.get(chosen, 0) + 1
        if self._ask("PATCH", f"/v1/documents/{chosen}", {"version": version, "by": self.number}):
            self.versions[chosen] = version

    def _list(self, rng: random.Random) -> None:
        by = {"filters": {"AND": [{"field": "by", "operator": "eq", "value": self.number}]}, "sort": {"field": "version"}}
        queries = [by, {"group_by": "by", "limit": 5}, {"limit": 20}]
        keyed = {"queries": [{"key": str(place), "request": one} for place, one in enumerate(queries)]}
        method, path, body = rng.choice(
            [
                ("POST", "/v1/documents/list", rng.choice(queries)),
                ("POST", "/v1/documents/list/batch", keyed),
                ("POST", f"/v1/buckets/{self.bucket_id}/objects/list", {"limit": 20}),
                ("GET", "/v1/buckets?limit=20", None),
                ("POST", f"/v1/buckets/{self.bucket_id}/batches/list", {"limit": 20}),
            ]
        )
        answer = self._ask(method, path, body)
        if answer and path.endswith("/list/batch"):
            self.failures += [f"list/batch: {one['error']}" for one in answer["results"] if one["error"]]


def shelf(home: Home, port: int) -> tuple[str, str, list[list[str]]]:
    """A namespace and a bucket, and documents of which every client gets some."""
    with Caller(port) as caller:
        caller.namespace = caller.post("/v1/namespaces", {"namespace_name": "soak"})["namespace_id"]
        bucket_id = caller.post("/v1/buckets", {"bucket_name": "soak", "bucket_schema": SCHEMA})["bucket_id"]
        source = {"type": "bucket", "bucket_ids": [bucket_id]}
        extractor = {"feature_extractor_name": STUB, "version": "v1", "input_mappings": {"text": "content"}}
        body = {"collection_name": "soak", "source": source, "feature_extractor": extractor}
        collection_id = CollectionId(caller.post("/v1/collections", body)["collection_id"])
        namespace_id = NamespaceId(caller.namespace)
    with home.warehouse.catalog.transaction() as records:
        collection = records.collections.get(collection_id, namespace_id=namespace_id)
        made: list[Document] = [document(collection, f"doc_{number:028x}") for number in range(CLIENTS * 3)]
        records.documents.put(collection_id, made)
    return namespace_id, bucket_id, [[one.document_id for one in made[n::CLIENTS]] for n in range(CLIENTS)]


def test_sixty_four_clients_that_write_and_list_lose_nothing(home: Home) -> None:
    with serving(home) as port:
        namespace_id, bucket_id, documents = shelf(home, port)
        clients = [Client(n, Caller(port, namespace_id), bucket_id, documents[n]) for n in range(CLIENTS)]
        until = time.monotonic() + SECONDS
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(lambda client: client.run(until), clients))
    sent = sum(sum(one.statuses.values()) for one in clients)
    print(f"{sent} requests in {SECONDS:g} s, slowest {max(one.slowest for one in clients):.1f} s")
    failures = [failure for client in clients for failure in client.failures]
    assert not failures, (len(failures), failures[:5])
    assert all(sum(client.statuses.values()) for client in clients), "some client was never answered"

    with home.warehouse.catalog.reading() as records:
        wanted = {one for client in clients for one in client.objects}
        bucket = records.buckets.get(bucket_id, namespace_id=NamespaceId(namespace_id))
        assert set(records.objects.ids_in_bucket(bucket.bucket_id)) == wanted
        assert bucket.object_count == len(wanted)
        for client in clients:
            named = records.documents.named(client.documents, namespace_id=NamespaceId(namespace_id))
            assert {one: named[one].payload.get("version", 0) for one in client.versions} == client.versions
            for batch_id, chosen in client.batches.items():
                assert {item for _, item in records.batches.items(BatchId(batch_id))} == chosen
    log = (home.folder / "output.log").read_text(errors="replace")
    assert "locked" not in log, log[-2000:]
    assert "Traceback" not in log, log[-2000:]
