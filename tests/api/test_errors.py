"""Every route answers errors in the one shape, and says nothing of its insides."""

import re
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mixpeek_dagster.api import create_app
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.settings import Settings


def routes() -> list[tuple[str, str]]:
    """Every (method, path) of the OpenAPI description."""
    from pathlib import Path

    app = create_app(Warehouse(settings=Settings(home=Path("/nowhere"), catalog_url="sqlite:////nowhere/catalog.db")))
    paths = app.openapi()["paths"]
    return [(method.upper(), path) for path, operations in paths.items() for method in operations]


ROUTES = routes()
SIGNED = ("/blob", "/content", "/webhooks/mux")
GUARDED = [(method, path) for method, path in ROUTES if "/health" not in path and not path.endswith(SIGNED)]


def filled(path: str) -> str:
    return re.sub(r"\{index\}", "0", path).replace("{", "").replace("}", "_1") if "{" in path else path


def check_shape(response: Any, status: int | set[int]) -> dict[str, Any]:
    wanted = {status} if isinstance(status, int) else status
    assert response.status_code in wanted, response.text
    body = response.json()
    assert set(body) == {"success", "status", "error"}
    assert body["success"] is False and body["status"] == response.status_code
    error = body["error"]
    assert set(error) == {"message", "type", "code", "details"}
    assert error["message"] and error["type"] and isinstance(error["details"], dict)
    assert "Traceback" not in response.text and 'File "' not in response.text and "sqlalchemy" not in response.text.lower()
    if response.status_code == 422:
        for fault in error["details"]["validation_errors"]:
            assert set(fault) == {"type", "location", "message"} and isinstance(fault["location"], list)
    return dict(error)


def test_without_a_key_every_route_is_401(client: TestClient) -> None:
    for method, path in GUARDED:
        for authorization in ("", "Bearer ", "Bearer sk_wrong", "Basic YTpi"):
            response = client.request(method, filled(path), headers={"Authorization": authorization}, content="{not json")
            check_shape(response, 401)
            assert response.headers["WWW-Authenticate"] == "Bearer"


def test_an_unknown_id_is_404_on_every_route(client: TestClient, namespace: dict[str, Any]) -> None:
    bodies: dict[str, Any] = {
        "dlq/bulk-mark-failed": {"error_types": ["x"]},
        "confirm/batch": {"confirmations": [{"upload_id": "x"}]},
        "uploads/batch": {"uploads": [{"filename": "a", "content_type": "image/png"}]},
        "objects/batch": {"objects": [{}]},
        "retrievers/{retriever_identifier}/clone": {"retriever_name": "x"},
        "execute/batch": {"queries": [{"inputs": {"query": "x"}}]},
        "uploads": {"filename": "a", "content_type": "image/png"},
        "syncs": {"connection_id": "x"},
        "{webhook_identifier}": {
            "webhook_name": "x",
            "event_types": ["*"],
            "channels": [{"channel": "webhook", "configs": {"url": "https://example.com"}}],
        },
    }
    for method, path in [one for one in GUARDED if "{" in one[1]]:
        body = next((value for suffix, value in bodies.items() if path.endswith(suffix)), {})
        response = client.request(method, filled(path), json=body if method in ("POST", "PUT", "PATCH") else None)
        assert response.status_code == 404, f"{method} {path}: {response.text}"
        check_shape(response, 404)


NOT_JSON = (("{", "application/json"), ("a=1", "application/x-www-form-urlencoded"), (b"\xff\xfe", "application/json"))


def test_a_body_that_is_not_json_is_422_on_every_route(client: TestClient, namespace: dict[str, Any]) -> None:
    for method, path in [one for one in GUARDED if one[0] in ("POST", "PUT", "PATCH")]:
        for content, kind in NOT_JSON:
            response = client.request(method, filled(path), content=content, headers={"Content-Type": kind})
            assert response.status_code == 422, f"{method} {path}: {response.text}"
            check_shape(response, 422)


TABOO = {
    "brackets": "[" * 100_000,
    "depth": '{"a":' * 2000 + "1" + "}" * 2000,
    "nul": '{"namespace_name": "a\\u0000b"}',
    "surrogate": '{"namespace_name": "\\ud800"}',
    "nan": '{"namespace_name": NaN}',
    "infinite": '{"x": 1e999}',
    "digits": '{"x": ' + "9" * 5000 + "}",
    "65 bits": '{"x": 99999999999999999999}',
}


def test_json_that_no_database_takes_is_422(client: TestClient) -> None:
    for content in TABOO.values():
        check_shape(client.post("/v1/namespaces", content=content, headers={"Content-Type": "application/json"}), 422)


def test_a_number_that_is_not_finite_is_422_on_every_route(client: TestClient, namespace: dict[str, Any]) -> None:
    for method, path in [one for one in GUARDED if one[0] in ("POST", "PUT", "PATCH", "DELETE")]:
        for number in ("NaN", "-Infinity", "1e999"):
            content = '{"metadata": {"deep": [%s]}}' % number  # noqa: UP031  # braces
            response = client.request(method, filled(path), content=content, headers={"Content-Type": "application/json"})
            assert response.status_code == 422, f"{method} {path}: {response.text}"
            check_shape(response, 422)


def test_unknown_routes_and_methods_have_the_shape(client: TestClient) -> None:
    check_shape(client.get("/v1/nothing"), 404)
    check_shape(client.get("/"), 404)
    check_shape(client.delete("/v1/buckets"), 405)


def test_a_failure_of_ours_is_500_without_words(
    client: TestClient, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret of the house")

    monkeypatch.setattr(type(warehouse.catalog), "reading", fail)
    response = client.get("/v1/namespaces")
    check_shape(response, 500)
    assert "secret" not in response.text and response.headers["X-Request-Id"].startswith("req_")


def test_every_operation_declares_its_errors(client: TestClient) -> None:
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        for method, operation in operations.items():
            if "/health" not in path:
                declared = set(operation["responses"])
                assert {"400", "403", "404", "422", "500", "503"} <= declared, f"{method} {path}"
                assert ({"401", "429"} <= declared) == ("security" in operation), f"{method} {path}"
            assert operation.get("description"), f"{method} {path} says nothing"


def test_a_namespace_has_to_be_named(client: TestClient) -> None:
    assert "X-Namespace" in check_shape(client.get("/v1/buckets"), 400)["message"]
    check_shape(client.get("/v1/buckets", headers={"X-Namespace": "nowhere"}), 404)


def test_request_ids_come_back(client: TestClient) -> None:
    assert client.get("/v1/namespaces", headers={"X-Request-Id": "mine-1"}).headers["X-Request-Id"] == "mine-1"
    assert client.get("/v1/namespaces", headers={"X-Request-Id": "x y\t"}).headers["X-Request-Id"].startswith("req_")


def test_a_trailing_slash_is_the_same_route(client: TestClient, namespace: dict[str, Any]) -> None:
    assert client.get("/v1/namespaces/").status_code == 200
    assert client.post("/v1/buckets/list/", headers={"Content-Type": "application/json"}).status_code == 200
