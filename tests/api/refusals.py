"""Requests to every route of the OpenAPI description, in a world with one of everything, and what a refusal has to be."""

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mixpeek_dagster.api import create_app
from mixpeek_dagster.pipeline.warehouse import Warehouse
from tests.api.seeded import World, build, candidates, copied, opened, serve
from tests.api.test_errors import check_shape

SECRETS = ("HOOKSECRET", "SYNCSECRET", "AKIASEEDED")
Answer = Any


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> World:
    home = tmp_path_factory.mktemp("seeded")
    return build(home, f"sqlite:///{home / 'catalog.db'}")


@pytest.fixture(scope="module")
def application(built: World) -> Iterator[TestClient]:
    with opened(built) as warehouse:
        yield TestClient(create_app(warehouse), raise_server_exceptions=False)


@pytest.fixture
def world(built: World, tmp_path: Path) -> World:
    return copied(built, tmp_path / "home")


@pytest.fixture
def warehouse(world: World, application: TestClient) -> Iterator[Warehouse]:
    with opened(world) as warehouse:
        serve(application, warehouse)
        yield warehouse


class Routes:
    """Every operation of the description, and a way to send one with what its path names filled in."""

    def __init__(self, client: TestClient, world: World) -> None:
        self.client, self.world = client, world
        paths = client.app.openapi()["paths"]  # type: ignore[attr-defined]  # FastAPI, which the client does not know
        self.all = [(method.upper(), path, one) for path, found in paths.items() for method, one in found.items()]
        self.guarded = [one for one in self.all if one[2].get("security")]
        self.with_body = [one for one in self.guarded if "requestBody" in one[2]]
        self.in_namespace = [one for one in self.guarded if any(p["name"] == "x-namespace" for p in one[2].get("parameters", ()))]

    def path(self, path: str, ids: dict[str, list[str]], *, which: int = 0) -> str:
        return re.sub(r"\{(\w+)\}", lambda match: candidates(ids, match[1])[which], path)

    def send(self, method: str, url: str, **more: Any) -> Answer:
        headers = {**self.world.headers, **more.pop("headers", {})}
        return self.client.request(method, url, headers=headers, **more)


@pytest.fixture
def routes(application: TestClient, world: World, warehouse: Warehouse) -> Routes:
    return Routes(application, world)


@pytest.fixture
def silent(warehouse: Warehouse, inventory: Callable[[], dict[str, int]], caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing is written, nothing fails inside, and no log line holds a secret."""
    before = inventory()
    with caplog.at_level(logging.INFO):
        yield
    assert inventory() == before
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR], caplog.text[:2000]
    assert not [secret for secret in SECRETS if secret in caplog.text]


def checked(answer: Answer, what: object, statuses: set[int]) -> None:
    assert answer.status_code in statuses, f"{what}: {answer.status_code} {answer.text[:500]}"
    check_shape(answer, statuses)
    assert not [secret for secret in SECRETS if secret in answer.text], what
