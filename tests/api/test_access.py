"""Keys, rate limits, size limits, and the access log."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from mixpeek_dagster.api import create_app
from mixpeek_dagster.api import guard as guards
from mixpeek_dagster.cli import app as commands
from mixpeek_dagster.pipeline.keys import create_first_key, create_key
from mixpeek_dagster.pipeline.warehouse import Warehouse
from tests.api.conftest import open_warehouse


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Warehouse]:
    warehouse = open_warehouse(tmp_path, api_key="sk_operator", rate_limit_per_minute=60, max_body_bytes=2000)
    yield warehouse
    warehouse.close()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_the_operators_key_is_valid_from_the_first_start(opened: Warehouse) -> None:
    with TestClient(create_app(opened)) as client:
        assert client.get("/v1/namespaces", headers=bearer("sk_operator")).status_code == 200
    assert create_first_key(opened) is None


def test_the_first_key_is_made_once(warehouse: Warehouse) -> None:
    first = create_first_key(warehouse)
    assert first is not None and first.token.startswith("sk_")
    assert create_first_key(warehouse) is None
    with warehouse.catalog.reading() as records:
        (row,) = records.connection.exec_driver_sql("SELECT * FROM api_keys").fetchall()
    assert first.token not in str(row)


def test_a_revoked_key_stops_working(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "REMEMBER_S", 0.0)
    made = create_key(warehouse, name="gone")
    with TestClient(create_app(warehouse)) as client:
        assert client.get("/v1/namespaces", headers=bearer(made.token)).status_code == 200
        with warehouse.catalog.transaction() as records:
            records.keys.revoke(made.key.key_id, now=warehouse.now())
        assert client.get("/v1/namespaces", headers=bearer(made.token)).status_code == 401


def test_a_key_of_one_namespace_sees_no_other(client: TestClient, warehouse: Warehouse) -> None:
    for name in ("mine", "other"):
        client.post("/v1/namespaces", json={"namespace_name": name + "-ns"})
    key = bearer(create_key(warehouse, name="limited", namespace="mine-ns").token)
    assert [one["namespace_name"] for one in client.get("/v1/namespaces", headers=key).json()["results"]] == ["mine-ns"]
    assert client.get("/v1/buckets", headers={**key, "X-Namespace": "mine-ns"}).status_code == 200
    assert client.get("/v1/buckets", headers={**key, "X-Namespace": "other-ns"}).status_code == 403
    assert client.get("/v1/namespaces/other-ns", headers=key).status_code == 403
    assert client.post("/v1/namespaces", json={"namespace_name": "more"}, headers=key).status_code == 403
    assert client.get("/v1/organizations/connections", headers=key).status_code == 403


def test_a_key_that_asks_too_often_is_told_when_to_come_again(opened: Warehouse) -> None:
    with TestClient(create_app(opened)) as client:
        answers = [client.get("/v1/namespaces", headers=bearer("sk_operator")) for _ in range(15)]
        refused = [one for one in answers if one.status_code == 429]
        assert len(refused) >= 3 and answers[0].status_code == 200
        assert int(refused[0].headers["Retry-After"]) >= 1
        assert refused[0].json()["error"]["details"]["retry_after_seconds"] > 0
        other = create_key(opened, name="other")
        assert client.get("/v1/namespaces", headers=bearer(other.token)).status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_413(opened: Warehouse, chunked: bool) -> None:
    body = json.dumps({"namespace_name": "x", "description": "y" * 3000}).encode()
    with TestClient(create_app(opened)) as client:
        content = iter([body[:1000], body[1000:]]) if chunked else body
        response = client.post(
            "/v1/namespaces", content=content, headers={**bearer("sk_operator"), "Content-Type": "application/json"}
        )
    assert response.status_code == 413 and response.json()["error"]["code"] == "payload_too_large"


def test_the_access_log_holds_no_secret(client: TestClient, namespace: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="mixpeek_dagster.access"):
        client.get("/v1/buckets?search=hidden-words")
    line = json.loads(caplog.records[-1].message)
    assert line["status"] == 200 and line["path"] == "/v1/buckets" and line["namespace"] == namespace["namespace_id"]
    assert line["key"].startswith("key_")
    assert "hidden-words" not in caplog.text and "sk_" not in caplog.text


def test_keys_are_made_listed_and_revoked_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXPEEK_HOME", str(tmp_path))
    runner = CliRunner()
    key_id, token = runner.invoke(commands, ["keys", "create", "--name", "ci"]).output.split()
    listed = runner.invoke(commands, ["keys", "list"]).output
    assert key_id[:8] in listed and token not in listed
    assert "revoked" in runner.invoke(commands, ["keys", "revoke", key_id]).output
