"""Routes of webhooks."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from mixpeek_dagster.pipeline.keys import create_key
from mixpeek_dagster.pipeline.warehouse import Warehouse

ROOT = "/v1/organizations/webhooks"
BODY: dict[str, Any] = {
    "webhook_name": "mine",
    "event_types": ["batch.completed", "object.created"],
    "channels": [{"channel": "webhook", "configs": {"url": "https://example.com/hook", "signing_secret": "s3cret"}}],
}


def test_a_webhook_is_made_read_listed_changed_and_deleted(client: TestClient) -> None:
    response = client.post(ROOT, json=BODY)
    assert response.status_code == 200, response.text
    made = response.json()
    assert made["webhook_id"].startswith("wh_")
    assert made["channels"][0]["configs"]["signing_secret"] == "redacted"
    assert "s3cret" not in response.text
    assert client.get(f"{ROOT}/mine").json() == made
    listed = client.post(f"{ROOT}/list", json={"event_type": "batch.completed"}).json()
    assert (listed["total"], listed["results"][0]["webhook_id"]) == (1, made["webhook_id"])
    assert client.post(f"{ROOT}/list", json={"is_active": False}).json()["total"] == 0
    changed = client.put(f"{ROOT}/{made['webhook_id']}", json={**BODY, "event_types": ["*"], "is_active": False}).json()
    assert (changed["event_types"], changed["is_active"]) == (["*"], False)
    assert client.post(ROOT, json=BODY).status_code == 409
    assert client.delete(f"{ROOT}/mine").status_code == 204
    assert client.get(f"{ROOT}/mine").status_code == 404
    assert client.post(f"{ROOT}/", json=BODY).status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        {"event_types": []},
        {"event_types": ["nope.happened"]},
        {"channels": []},
        {"channels": [{"channel": "pigeon", "configs": {"url": "https://example.com"}}]},
        {"channels": [{"channel": "webhook", "configs": {}}]},
        {"channels": [{"channel": "webhook", "configs": {"url": "http://127.0.0.1/"}}]},
        {"channels": [{"channel": "webhook", "configs": {"url": "https://example.com", "headers": {"a": "b\r\nc: d"}}}]},
        {"webhook_name": ""},
    ],
)
def test_what_does_not_fit_is_422(client: TestClient, change: dict[str, Any]) -> None:
    assert client.post(ROOT, json={**BODY, **change}).status_code == 422
    assert client.post(f"{ROOT}/list").json()["total"] == 0


def test_a_key_of_one_namespace_may_not_touch_webhooks(
    client: TestClient, namespace: dict[str, Any], warehouse: Warehouse
) -> None:
    key = create_key(warehouse, name="narrow", namespace=namespace["namespace_id"])
    response = client.post(ROOT, json=BODY, headers={"Authorization": f"Bearer {key.token}"})
    assert response.status_code == 403
