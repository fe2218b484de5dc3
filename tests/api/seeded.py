"""A warehouse with one of everything in it, and the ids of all of it by the names that path and body parameters have."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from mixpeek_dagster.api import create_app
from mixpeek_dagster.api.guard import Guard
from mixpeek_dagster.pipeline.keys import create_key
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.settings import Settings
from tests.api.running import STUB, Shop

SCHEMA = {"content": {"type": "text"}, "hero_image": {"type": "image"}, "sku": {"type": "string"}, "price": {"type": "number"}}
CONNECTION = {
    "bucket_name": "files",
    "endpoint_url": "https://storage.example.com",
    "credentials": {"access_key_id": "AKIASEEDED", "secret_access_key": "SYNCSECRET"},
}
SYNC = {"provider": "s3", "connection": CONNECTION, "sync_config": {"source_path": "/", "polling_interval": 3600}}
SEARCH = {
    "feature_uri": "mixpeek://stub_extractor@v1/embedding",
    "query": {"input_mode": "text", "text": "{{INPUT.query}}"},
    "top_k": 10,
}
FIND = {"stage_name": "find", "config": {"stage_id": "feature_search", "parameters": {"searches": [SEARCH]}}}
OPENED = frozenset({"mixpeek_dagster.testing"})
HOOK = {
    "webhook_name": "hook",
    "event_types": ["*"],
    "channels": [{"channel": "webhook", "configs": {"url": "https://example.com/hook", "signing_secret": "HOOKSECRET"}}],
}


@dataclass(frozen=True)
class World:
    """Ids (and names, where a name is as good) of what there is, by parameter name. The first of each is the one to use.

    `own` lies in the namespace `production`, `foreign` in another one.
    """

    home: Path
    catalog_url: str
    token: str
    namespace_id: str
    own: dict[str, list[str]]
    foreign: dict[str, list[str]]

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}", "X-Namespace": self.namespace_id}


def build(home: Path, catalog_url: str) -> World:
    """Make it, through the API as far as that goes."""
    warehouse = Warehouse(
        settings=Settings(home=home, catalog_url=catalog_url, models=home / "models", threads=1, plugin_modules=OPENED)
    )
    token = create_key(warehouse, name="seeded").token
    with TestClient(create_app(warehouse)) as client:
        client.headers["Authorization"] = f"Bearer {token}"
        shared = _organization(client)
        foreign = _namespace(client, warehouse, "elsewhere") | shared
        own = _namespace(client, warehouse, "production") | shared
    warehouse.close()
    return World(home, catalog_url, token, own["namespace_identifier"][0], own, foreign)


def copied(world: World, home: Path) -> World:
    """The same in a new folder, on SQLite: to be changed at will."""
    shutil.copytree(world.home, home, dirs_exist_ok=True)
    return replace(world, home=home, catalog_url=f"sqlite:///{home / 'catalog.db'}")


@contextmanager
def opened(world: World, **settings: Any) -> Iterator[Warehouse]:
    """The warehouse of a world; it allows many requests a minute."""
    plain = Settings(
        home=world.home,
        catalog_url=world.catalog_url,
        models=world.home / "models",
        rate_limit_per_minute=0,
        plugin_modules=OPENED,
    )
    warehouse = Warehouse(settings=replace(plain, **settings))
    yield warehouse
    warehouse.close()


def serve(client: TestClient, warehouse: Warehouse) -> None:
    """Let an application that is there already serve another warehouse: building one takes longer than most tests."""
    app: Any = client.app
    app.state.warehouse, app.state.guard = warehouse, Guard(warehouse)


def _organization(client: TestClient) -> dict[str, list[str]]:
    body = {"name": "conn", "provider_type": "s3", "provider_config": CONNECTION, "test_before_save": False}
    connection = _sent(client, "POST", "/v1/organizations/connections", body)["connection_id"]
    webhook = _sent(client, "POST", "/v1/organizations/webhooks", HOOK)["webhook_id"]
    return {"connection_identifier": [connection, "conn"], "webhook_identifier": [webhook, "hook"]}


def _namespace(client: TestClient, warehouse: Warehouse, name: str) -> dict[str, list[str]]:
    made = _sent(client, "POST", "/v1/namespaces", {"namespace_name": name})["namespace_id"]
    client.headers["X-Namespace"] = made
    shop = Shop(client, warehouse, bucket_schema={"properties": SCHEMA})
    above = shop.collection("above", {"type": "collection", "collection_ids": [shop.collection_id]}, parameters={"fail_on": "b"})
    objects = shop.add("a", "b", "c")
    done = shop.batch(objects)["batch_id"]
    bucket = f"/v1/buckets/{shop.bucket_id}"
    shop.post(f"{bucket}/batches/{done}/submit")
    shop.run()
    waiting, draft = shop.batch(objects[:1])["batch_id"], shop.batch(objects[:2])["batch_id"]
    shop.post(f"{bucket}/batches/{waiting}/submit")
    uploads = [shop.post(f"{bucket}/uploads", {"filename": f"{n}.jpg", "content_type": "image/jpeg"}) for n in range(3)]
    for upload in uploads[:2]:
        assert client.put(upload["presigned_url"], content=b"\xff\xd8\xff" + upload["upload_id"].encode()).status_code == 200
    shop.post(f"{bucket}/uploads/{uploads[1]['upload_id']}/confirm")
    sync = shop.post(f"{bucket}/syncs", SYNC)["sync_id"]
    job = shop.post(f"{bucket}/syncs/{sync}/trigger")["sync_job_id"]
    shop.post(f"/v1/collections/{above}/documents", {"title": "by hand", "price": 3})
    bulk = {"filters": {"sku": "nothing"}, "update_data": {"bulk": 1}}
    task = _sent(client, "PATCH", f"/v1/collections/{above}/documents/bulk", bulk)["task_id"]
    stored = shop.post("/v1/retrievers", {"retriever_name": "found", "collection_identifiers": ["passages"], "stages": [FIND]})
    documents = [one["document_id"] for name in ("passages", "above") for one in shop.documents(collection_ids=[name])]
    return {
        "namespace_identifier": [made, name],
        "bucket_identifier": [shop.bucket_id, "shop"],
        "collection_identifier": [shop.collection_id, "passages", above, "above"],
        "object_identifier": objects,
        "document_id": documents,
        "batch_id": [draft, done, waiting],
        "upload_id": [one["upload_id"] for one in uploads],
        "sync_id": [sync],
        "job_id": [job],
        "task_id": [task, *(shop.get(f"/v1/batches/{one}")["task_id"] for one in (done, waiting))],
        "feature_extractor_id": ["text_extractor_v1"],
        "retriever_identifier": [
            stored["retriever"]["retriever_id"] if "retriever" in stored else stored["retriever_id"],
            "found",
        ],
        "tier_num": ["0", "1"],
        "index": ["0"],
    }


def _sent(client: TestClient, method: str, path: str, body: Any) -> dict[str, Any]:
    response = client.request(method, path, json=body)
    assert response.status_code == 200, response.text
    return dict(response.json())


SINGULAR = {
    "namespace": "namespace_identifier",
    "bucket": "bucket_identifier",
    "collection": "collection_identifier",
    "object": "object_identifier",
    "connection": "connection_identifier",
    "webhook": "webhook_identifier",
    "document": "document_id",
    "batch": "batch_id",
    "upload": "upload_id",
    "sync": "sync_id",
    "task": "task_id",
}


def candidates(ids: dict[str, list[str]], name: str) -> Sequence[str]:
    """What a parameter of that name may say: `bucket_id`, `bucket_ids` and `include_buckets` are all about buckets."""
    if name in ids:
        return ids[name]
    words = name.removeprefix("include_").split("_")
    if words[-1] in ("id", "ids", "identifier", "identifiers") or name.startswith("include_"):
        noun = words[-2] if words[-1].startswith("id") and len(words) > 1 else words[-1].removesuffix("s")
        return ids.get(SINGULAR.get(noun.removesuffix("s"), ""), ())
    return ()


__all__ = ["HOOK", "STUB", "SYNC", "World", "build", "candidates", "copied", "opened", "serve"]
