"""schemathesis over every route: whatever it makes of our OpenAPI description is answered as that says, and never with 5xx.

In the suite every route gets a few requests, the same ones each time, some that fit and some that do not. Environment variables make
it a longer run: `MIXPEEK_SCHEMATHESIS_EXAMPLES=100` sends so many of each kind to every route, and beside them what schemathesis
derives from every constraint of the description; `MIXPEEK_SCHEMATHESIS_DATABASE=postgres` keeps the catalog in Postgres.
"""

import os
import random
import re
import socket
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.generation.drivers import CoverageGenerator
from schemathesis.generation.feedback import NO_FEEDBACK
from schemathesis.generation.overrides import Override
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance
from sqlalchemy import create_engine, make_url

from mixpeek_dagster.api import create_app
from tests.api.seeded import World, build, candidates, copied, opened, serve

EXAMPLES = os.environ.get("MIXPEEK_SCHEMATHESIS_EXAMPLES", "")
IS_POSTGRES = os.environ.get("MIXPEEK_SCHEMATHESIS_DATABASE") == "postgres"
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
REPEATABLE = settings(
    max_examples=int(EXAMPLES or 3),
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)


@pytest.fixture(scope="module")
def worlds(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], World]:
    """Makes a world like the one before it, with nothing that a request did to that."""
    homes = (tmp_path_factory.mktemp("seeded") for _ in iter(int, 1))
    home = next(homes)
    if IS_POSTGRES:
        database = _Databases(request.getfixturevalue("postgres_url"))
        built = build(home, database.made("seeded"))
        return lambda: replace(built, catalog_url=database.made(next(homes).name, template="seeded"))
    first = build(home, f"sqlite:///{home / 'catalog.db'}")
    return lambda: copied(first, next(homes))


class _Databases:
    """Databases of one Postgres server; a copy of one is a matter of a moment."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)

    def made(self, name: str, *, template: str = "template0") -> str:
        engine = create_engine(self._url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        engine.dispose()
        return self._url.set(database=name).render_as_string(hide_password=False)


@pytest.fixture(scope="module")
def client(worlds: Callable[[], World]) -> Iterator[TestClient]:
    with opened(worlds()) as warehouse:
        yield TestClient(create_app(warehouse), raise_server_exceptions=False)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that schemathesis makes up are not looked up."""

    def refuse(host: Any, *_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, f"{host} is not looked up in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


class Sender:
    """Sends cases into one world, most of them with ids of records that are there."""

    def __init__(self, client: TestClient, world: World) -> None:
        self.client, self.world = client, world
        self.statuses: Counter[int] = Counter()

    def __call__(self, case: Case[Any]) -> None:
        dice = random.Random(zlib.crc32(repr((case.path_parameters, case.query, case.body)).encode("utf-8", "surrogatepass")))
        if dice.random() < 0.9:
            names = re.findall(r"\{(\w+)\}", case.operation.path)
            case.path_parameters = {name: dice.choice(candidates(self.world.own, name)) for name in names}
        if isinstance(case.body, dict | list):
            case.body = self._known(dice, "", case.body)
        if case.query and dice.random() < 0.9:
            case.query = {name: value for name, value in case.query.items() if name != "namespace"}
        sent = case.as_transport_kwargs(base_url="http://testserver")
        own = {name.lower(): value for name, value in self.world.headers.items()}
        headers = {**{name.lower(): value for name, value in sent.pop("headers").items()}, **own}
        sent.pop("cookies", None)
        if len(str(sent.get("params"))) > 60_000:
            return  # no client sends such a query
        if "data" in sent:
            sent["content"] = sent.pop("data")
        response = self.client.request(sent.pop("method"), sent.pop("url"), headers=headers, **sent)
        self.statuses[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)

    def _known(self, dice: random.Random, name: str, value: Any) -> Any:
        """A body with ids of what there is in place of some made up ones."""
        if isinstance(value, dict):
            return {key: self._known(dice, key, inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._known(dice, name, inner) for inner in value]
        known = candidates(self.world.own, name)
        return dice.choice(known) if known and isinstance(value, str) and dice.random() < 0.8 else value


@pytest.mark.timeout(3600)
def test_every_route_answers_as_it_is_described(
    worlds: Callable[[], World], client: TestClient, no_network: None, subtests: pytest.Subtests
) -> None:
    schema = schemathesis.openapi.from_dict(client.app.openapi(), config=SchemathesisConfig())  # type: ignore[attr-defined]  # FastAPI
    operations: list[Any] = [found.ok() for found in schema.get_all_operations()]  # type: ignore[union-attr]  # an Err would fail here
    statuses: Counter[int] = Counter()
    for operation in operations:
        world = worlds()
        with subtests.test(operation.label), opened(world) as warehouse:
            serve(client, warehouse)
            sender = Sender(client, world)
            for mode in MODES:
                _generated(operation, mode, sender)
            for case in _of_every_constraint(operation) if EXAMPLES else ():
                sender(case)
            statuses += sender.statuses
    print(f"{sum(statuses.values())} requests to {len(operations)} operations: {dict(sorted(statuses.items()))}")
    assert len(operations) > 120
    assert statuses[200] > len(operations), statuses
    assert {202, 204, 400, 404, 422} <= set(statuses), statuses


def _generated(operation: APIOperation[Any, Any, Any, Any], mode: GenerationMode, sender: Sender) -> None:
    if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query or operation.path_parameters):
        return  # nothing about it can be wrong

    @REPEATABLE
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: Case[Any]) -> None:
        sender(case)

    send()


def _of_every_constraint(operation: APIOperation[Any, Any, Any, Any]) -> Iterator[Case[Any]]:
    config = operation.schema.config.generation_for(operation=operation, phase="coverage")
    nothing = Override(query={}, headers={}, cookies={}, path_parameters={})
    yield from CoverageGenerator(
        operation=operation,
        generation_modes=list(MODES),
        generation_config=config,
        auth_storage=None,
        override=nothing,
        feedback=NO_FEEDBACK,
    )
