"""Webhooks of Mux: only genuine ones are followed, and what they say is asked of Mux itself."""

import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mixpeek_dagster.models.buckets import BucketCreate
from mixpeek_dagster.models.ids import NamespaceId
from mixpeek_dagster.pipeline.creation import create_bucket, create_sync
from mixpeek_dagster.pipeline.syncs import advance
from mixpeek_dagster.pipeline.warehouse import Warehouse
from tests.api.conftest import open_warehouse
from tests.pipeline.worlds import NOW
from tests.storage.mux_stub import MuxStub, asset, rendition
from tests.storage.scripted import Scripted, scripted

SECRET = "whsec-of-this-test"


@pytest.fixture
def stub() -> MuxStub:
    return MuxStub()


@pytest.fixture
def server(stub: MuxStub) -> Iterator[Scripted]:
    with scripted(stub.answer) as server:
        yield server


@pytest.fixture
def warehouse(tmp_path: Any, server: Scripted) -> Iterator[Warehouse]:
    warehouse = open_warehouse(tmp_path, allowed_hosts=frozenset({server.host}))
    yield warehouse
    warehouse.close()


@pytest.fixture
def path(warehouse: Warehouse, namespace: dict[str, Any], server: Scripted) -> str:
    """The webhook of a sync that has made its first pass."""
    credentials = {"access_token_id": "id", "access_token_secret": "hush", "webhook_secret": SECRET}
    config = {"endpoint_url": server.url, "stream_url": server.url, "credentials": credentials}
    schema = {"properties": {"clip": {"type": "video"}}}
    with warehouse.catalog.transaction() as records:
        body = BucketCreate.model_validate({"bucket_name": "clips", "bucket_schema": schema})
        bucket = create_bucket(records, body, namespace_id=NamespaceId(namespace["namespace_id"]), now=NOW)
        wanted = {"provider": "mux", "connection": config, "sync_config": {"source_path": "mux://"}}
        sync = create_sync(records, wanted, warehouse=warehouse, bucket=bucket, now=NOW)
    progress = advance(warehouse, sync.sync_id, budget_s=20, force=True)
    assert progress is not None
    assert progress.finished, progress.error
    return f"/v1/syncs/{sync.sync_id}/webhooks/mux"


def signed(body: bytes, *, secret: str = SECRET, at: float | None = None) -> dict[str, str]:
    sent = str(int(time.time() if at is None else at))
    signature = hmac.new(secret.encode(), f"{sent}.".encode() + body, hashlib.sha256).hexdigest()
    return {"Mux-Signature": f"t={sent},v1={signature}", "Authorization": ""}


def event(kind: str, **data: Any) -> bytes:
    return json.dumps({"type": kind, "object": {"type": "asset"}, "id": "e1", "data": data}).encode()


def test_an_asset_is_known_as_soon_as_mux_tells_of_it_and_gone_as_soon(client: TestClient, path: str, stub: MuxStub) -> None:
    stub.add(asset("one", rendition("high.mp4")))
    ready = event("video.asset.ready", id="one")
    for wanted in (1, 0):  # the second time it is no news
        answer = client.post(path, content=ready, headers=signed(ready))
        assert (answer.status_code, answer.json()["new"]) == (200, wanted)
    made = event("video.asset.static_rendition.ready", id="r1", asset_id="one")
    stub.assets["one"]["static_renditions"]["files"].append(rendition("higher.mp4", b"a longer movie", height=1080))
    assert client.post(path, content=made, headers=signed(made)).json()["changed"] == 1
    del stub.assets["one"]
    gone = event("video.asset.deleted", id="one")
    assert client.post(path, content=gone, headers=signed(gone)).json()["deleted"] == 1


def test_other_events_and_malformed_ones_are_taken_and_mean_nothing(client: TestClient, path: str) -> None:
    for body in (
        event("video.upload.created", id="u"),
        b"no json",
        b"[]",
        event("video.asset.ready"),
        b'{"type": "video.asset.x"}',
    ):
        answer = client.post(path, content=body, headers=signed(body))
        assert (answer.status_code, answer.json()) == (200, {"new": 0, "changed": 0, "deleted": 0})


@pytest.mark.parametrize("how", ["another secret", "another body", "old", "no signature", "nonsense", "another sync"])
def test_a_webhook_that_is_not_genuine_is_refused_and_asks_mux_nothing(
    client: TestClient, path: str, server: Scripted, how: str
) -> None:
    body = event("video.asset.ready", id="one")
    headers = {
        "another secret": signed(body, secret="guessed"),
        "another body": signed(b"{}"),
        "old": signed(body, at=time.time() - 3600),
        "no signature": {"Mux-Signature": ""},
        "nonsense": {"Mux-Signature": "t=x,v1=,v1=0,=,"},
    }.get(how, signed(body))
    asked = len(server.asked)
    url = path if how != "another sync" else "/v1/syncs/sync_nobody/webhooks/mux"
    answer = client.post(url, content=body, headers=headers)
    assert answer.status_code == 403, answer.text
    assert len(server.asked) == asked
