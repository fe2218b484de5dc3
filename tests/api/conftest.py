"""A client on a warehouse of its own: `client` has a key, `namespace` is in the header of `inside`."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mixpeek_dagster.api import create_app
from mixpeek_dagster.pipeline.keys import create_key
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.settings import Settings


def open_warehouse(home: Path, **changes: Any) -> Warehouse:
    opened = frozenset({"mixpeek_dagster.testing"})
    settings = Settings(home=home, catalog_url=f"sqlite:///{home / 'catalog.db'}", models=home / "models", plugin_modules=opened)
    return Warehouse(settings=replace(settings, **changes))


@pytest.fixture
def warehouse(tmp_path: Path) -> Iterator[Warehouse]:
    warehouse = open_warehouse(tmp_path)
    yield warehouse
    warehouse.close()


@pytest.fixture
def client(warehouse: Warehouse) -> Iterator[TestClient]:
    with TestClient(create_app(warehouse), raise_server_exceptions=False) as client:
        client.headers["Authorization"] = f"Bearer {create_key(warehouse, name='test').token}"
        yield client


@pytest.fixture
def namespace(client: TestClient) -> dict[str, Any]:
    """A namespace that the client's requests are in from now on."""
    made = client.post("/v1/namespaces", json={"namespace_name": "production"}).json()
    client.headers["X-Namespace"] = made["namespace_id"]
    return dict(made)


SCHEMA = {"properties": {"product_text": {"type": "text"}, "hero_image": {"type": "image"}, "price": {"type": "number"}}}


@pytest.fixture
def bucket(client: TestClient, namespace: dict[str, Any]) -> dict[str, Any]:
    return dict(client.post("/v1/buckets", json={"bucket_name": "product-catalog", "bucket_schema": SCHEMA}).json())


@pytest.fixture
def inventory(warehouse: Warehouse) -> Callable[[], dict[str, int]]:
    """How many rows every table holds: what 'nothing was written' means."""
    from sqlalchemy import func, select

    from mixpeek_dagster.catalog.tables import metadata

    def counted() -> dict[str, int]:
        with warehouse.catalog.reading() as records:
            return {
                table.name: records.connection.execute(select(func.count()).select_from(table)).scalar_one()
                for table in metadata.sorted_tables
            }

    return counted
