"""`POST /v1/tasks/list` in full, on each database: tasks of batches and others in one list, filtered, searched, sorted and paged."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mixpeek_dagster.pipeline.warehouse import Warehouse
from tests.api.conftest import open_warehouse
from tests.api.running import Shop, shop
from tests.pipeline.worlds import emptied

__all__ = ["shop"]

BULK, BATCH = "api_collections_documents_bulk_update", "api_buckets_batches_process"


@pytest.fixture(params=["sqlite", "postgres"])
def warehouse(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Warehouse]:
    more = {} if request.param == "sqlite" else {"catalog_url": emptied(request.getfixturevalue("postgres_url"))}
    opened = open_warehouse(tmp_path, **more)
    yield opened
    opened.close()


@pytest.fixture
def busy(shop: Shop) -> Shop:
    """Two batches, the first of which is done, and a bulk update between them."""
    shop.batch(shop.add("a", "b"), auto_submit=True)
    shop.run()
    shop.client.patch("/v1/collections/passages/documents/bulk", json={"filters": {"sku": "x"}, "update_data": {"Note": 1}})
    shop.batch(shop.add("c"), auto_submit=True)
    return shop


def listed(shop: Shop, **body: Any) -> list[tuple[str, str]]:
    return [(one["task_type"], one["status"]) for one in shop.post("/v1/tasks/list", body)["results"]]


DONE, UPDATE, WAITING = (BATCH, "COMPLETED"), (BULK, "COMPLETED"), (BATCH, "QUEUED")
EVERY = [WAITING, UPDATE, DONE]


def condition(field: str, value: Any, operator: str = "eq", **more: Any) -> dict[str, Any]:
    return {"AND": [{"field": field, "operator": operator, "value": value, **more}]}


CASES: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({}, EVERY),
    ({"status": "PENDING"}, [WAITING]),
    ({"status": "COMPLETED"}, [UPDATE, DONE]),
    ({"task_type": BATCH}, [WAITING, DONE]),
    ({"task_type": "api_collections_trigger"}, []),
    ({"filters": condition("status", "completed", case_sensitive=False)}, [UPDATE, DONE]),  # as the SDK sends it
    ({"filters": {**condition("status", "completed"), "case_sensitive": True}}, []),
    ({"filters": condition("task_type", [BULK], "in")}, [UPDATE]),
    ({"filters": {"NOT": [{"field": "task_type", "value": BULK}]}}, [WAITING, DONE]),
    ({"filters": condition("additional_data.object_count", 2, "gte")}, [DONE]),
    ({"filters": condition("additional_data.documents_written", 2)}, [DONE]),
    ({"filters": condition("inputs.update_data.Note", 1)}, [UPDATE]),
    ({"filters": condition("created_at", "2000-01-01", "gt")}, EVERY),
    ({"filters": condition("nowhere", 1)}, []),
    ({"sort": {"field": "created_at", "direction": "asc"}}, EVERY[::-1]),
    ({"sort": {"field": "additional_data.object_count", "direction": "desc"}}, [DONE, WAITING, UPDATE]),
    ({"sorts": [{"field": "task_type"}, {"field": "status", "direction": "desc"}]}, [WAITING, DONE, UPDATE]),
    ({"search": "BULK_upd"}, [UPDATE]),
    ({"search": '"note"'}, [UPDATE]),
    ({"search": "%"}, []),
    ({"status": "COMPLETED", "filters": {"task_type": BATCH}, "sort": {"field": "error"}}, [DONE]),
]


def test_tasks_are_filtered_searched_and_sorted(busy: Shop) -> None:
    for body, found in CASES:
        assert listed(busy, **body) == found, body


def test_names_of_batches_are_found_in_their_tasks(busy: Shop) -> None:
    batches = busy.post("/v1/batches/list")["results"]
    for batch in batches:
        for field in ("additional_data.batch_id", "inputs.batch_id"):
            found = busy.post("/v1/tasks/list", {"filters": condition(field, batch["batch_id"])})
            assert [one["task_id"] for one in found["results"]] == [batch["task_id"]]
        assert [one["task_id"] for one in busy.post("/v1/tasks/list", {"search": batch["batch_id"]})["results"]] == [
            batch["task_id"]
        ]


def test_pages_of_tasks_continue_and_count_what_matches(busy: Shop) -> None:
    body: dict[str, Any] = {"limit": 1, "sort": {"field": "created_at"}, "filters": condition("status", "COMPLETED")}
    first = busy.post("/v1/tasks/list", body)
    second = busy.post("/v1/tasks/list", {**body, "cursor": first["pagination"]["next_cursor"]})
    assert [one["results"][0]["task_type"] for one in (first, second)] == [BATCH, BULK]
    assert first["pagination"]["total_count"] == second["pagination"]["total_count"] == 2
    assert first["pagination"]["has_more"] and not second["pagination"]["has_more"]


def test_a_filter_or_sort_of_tasks_that_is_none_is_refused(busy: Shop) -> None:
    for body in ({"filters": condition("status", 1, "like")}, {"sort": {"field": 'x"y'}}, {"filters": [1]}, {"search": 7}):
        assert busy.client.post("/v1/tasks/list", json=body).status_code == 422
