"""Seed 000: `POST /v1/documents/list/batch`, as the page sends it, and every field of its answer."""

import threading
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mixpeek_dagster.api import documents as routes
from mixpeek_dagster.errors import CatalogError
from tests.api.running import Shop, shop

__all__ = ["shop"]

REQUEST: dict[str, Any] = {
    "filters": {
        "AND": [{"field": "name", "operator": "eq", "value": "John"}, {"field": "age", "operator": "gte", "value": 30}],
        "OR": [{"field": "status", "operator": "eq", "value": "active"}, {"field": "role", "operator": "eq", "value": "admin"}],
        "NOT": [
            {"field": "department", "operator": "eq", "value": "HR"},
            {"field": "location", "operator": "eq", "value": "remote"},
        ],
        "case_sensitive": True,
    },
    "sort": {"field": "created_at", "direction": "desc"},
    "search": "<string>",
    "cursor": "<string>",
    "return_presigned_urls": False,
    "return_vectors": False,
    "return_vector_names": False,
    "group_by": "source_object_id",
    "select": ["metadata.title", "content"],
    "expand": ["customer_id"],
    "limit": 10,
    "offset": 0,
    "collection_ids": ["<string>"],
}


def ask(client: TestClient, *queries: dict[str, Any]) -> list[dict[str, Any]]:
    body = {"queries": [{"key": f"q{place}", "request": query} for place, query in enumerate(queries)]}
    response = client.post("/v1/documents/list/batch", json=body)
    assert response.status_code == 200, response.text
    assert [one["key"] for one in response.json()["results"]] == [f"q{place}" for place in range(len(queries))]
    return list(response.json()["results"])


def test_the_page_is_sent_as_written_and_its_placeholder_cursor_fails_alone(shop: Shop) -> None:
    (answer,) = ask(shop.client, REQUEST)
    assert answer["response"] is None
    assert "cursor" in answer["error"]
    (answer,) = ask(shop.client, {name: value for name, value in REQUEST.items() if name != "cursor"})
    assert answer["error"] is None
    assert answer["response"]["groups"] == []
    assert answer["response"]["unknown_collection_ids"] == ["<string>"]


def test_every_field_of_the_sample_answer_is_there(shop: Shop) -> None:
    made = shop.post(
        f"/v1/collections/{shop.collection_id}/documents", {"metadata": {"title": "AI Article"}, "name": "John", "age": 31}
    )
    (answer,) = ask(shop.client, {"select": ["metadata.title"], "collection_ids": [shop.collection_id]})
    assert set(answer) == {"key", "response", "error"}
    response = answer["response"]
    pagination = {name: response["pagination"][name] for name in ("has_more", "limit", "offset", "total_count")}
    assert pagination == {"has_more": False, "limit": 10, "offset": 0, "total_count": 1}
    assert response["results"] == [
        {"collection_id": shop.collection_id, "document_id": made["document_id"], "metadata": {"title": "AI Article"}}
    ]
    assert set(response["stats"]) == {"avg_blobs_per_document", "total_documents"}
    assert response["stats"]["total_documents"] == 1


def test_ten_queries_keep_their_order_and_one_that_fails_fails_alone(shop: Shop) -> None:
    for n in range(10):
        shop.post(f"/v1/collections/{shop.collection_id}/documents", {"n": n})
    queries: list[dict[str, Any]] = [{"filters": {"n": n}} for n in range(10)]
    queries[3] = {"filters": {"AND": [{"field": "n", "operator": "nope", "value": 1}]}}
    answers = ask(shop.client, *queries)
    assert [one["response"]["results"][0]["n"] for one in answers if one["response"]] == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert "operator" in answers[3]["error"]
    assert all((one["error"] is None) is (one["response"] is not None) for one in answers)


def test_none_eleven_and_unknown_keys_are_422(shop: Shop) -> None:
    for queries in ([], [{"key": "a", "request": {}}] * 11, [{"key": "", "request": {}}], [{"key": "a"}]):
        assert shop.client.post("/v1/documents/list/batch", json={"queries": queries}).status_code == 422
    response = shop.client.post("/v1/documents/list/batch", json={"queries": [{"key": "a", "request": {"filter": {}}}]})
    assert response.status_code == 422
    assert "accepted are" in response.json()["error"]["message"]


def test_queries_run_at_the_same_time(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = min(10, shop.warehouse.catalog.readers)
    meeting = threading.Barrier(at_once, timeout=20)
    real = routes.list_documents

    def waits(*arguments: Any, **options: Any) -> Any:
        meeting.wait()
        return real(*arguments, **options)

    monkeypatch.setattr(routes, "list_documents", waits)
    assert all(one["error"] is None for one in ask(shop.client, *[{}] * at_once))


def test_a_failure_of_ours_fails_one_query_and_says_nothing_of_itself(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(warehouse: Any, request: Any, **options: Any) -> Any:
        raise CatalogError("The catalog is away.") if request.limit == 1 else ZeroDivisionError("secret")

    monkeypatch.setattr(routes, "list_documents", breaks)
    answers = ask(shop.client, {"limit": 1}, {"limit": 2})
    assert answers[0]["error"] == "The catalog is away."
    assert "secret" not in answers[1]["error"]
