"""Collections over a bucket made through the API, and a way to run what was submitted, as Dagster would."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mixpeek_dagster.models.ids import NamespaceId
from mixpeek_dagster.pipeline.batches import claim
from mixpeek_dagster.pipeline.extraction import run_step
from mixpeek_dagster.pipeline.warehouse import Warehouse

STUB = "mixpeek_dagster.testing:StubExtractor"
SCHEMA = {"properties": {"content": {"type": "text"}, "sku": {"type": "string"}}}


def run_all(warehouse: Warehouse) -> int:
    """Claim everything that is queued and run it; how many parts."""
    with warehouse.catalog.transaction() as records:
        claims = claim(records, limit=1000, now=warehouse.now())
    for one in claims:
        for collection_id in one.collection_ids:
            with warehouse.catalog.reading() as records:
                collection = records.collections.get(collection_id, namespace_id=NamespaceId(one.namespace_id))
            run_step(warehouse, one.part.partition_key, collection, run_id=f"run-{one.part.partition_key}-{one.part.attempt}")
    return len(claims)


class Shop:
    """A bucket `shop`, made with `unique_key` when one is given, and a collection `passages` over it."""

    def __init__(self, client: TestClient, warehouse: Warehouse, **bucket: Any) -> None:
        self.client, self.warehouse = client, warehouse
        self.bucket_id = self.post("/v1/buckets", {"bucket_name": "shop", "bucket_schema": SCHEMA, **bucket})["bucket_id"]
        self.collection_id = self.collection("passages", {"type": "bucket", "bucket_ids": [self.bucket_id]})

    def post(self, path: str, body: Any = None, *, status: int = 200) -> dict[str, Any]:
        response = self.client.post(path, json=body) if body is not None else self.client.post(path)
        assert response.status_code == status, response.text
        return dict(response.json())

    def get(self, path: str, *, status: int = 200) -> dict[str, Any]:
        response = self.client.get(path)
        assert response.status_code == status, response.text
        return dict(response.json())

    def collection(self, name: str, source: dict[str, Any], **extractor: Any) -> str:
        config = {"feature_extractor_name": STUB, "input_mappings": {"text": "content"}, "version": "v1"}
        config |= {"field_passthrough": [{"source_path": "sku"}], **extractor}
        made = self.post("/v1/collections", {"collection_name": name, "source": source, "feature_extractor": config})
        return str(made["collection_id"])

    def add(self, *skus: str, **fields: Any) -> list[str]:
        """One object per SKU; its text is the SKU."""
        made = []
        for sku in skus:
            blobs = [{"property": "content", "type": "text", "content": sku}]
            made.append(self.post(f"/v1/buckets/{self.bucket_id}/objects", {"blobs": blobs, "sku": sku, **fields})["object_id"])
        return made

    def batch(self, object_ids: list[str], **more: Any) -> dict[str, Any]:
        return self.post(f"/v1/buckets/{self.bucket_id}/batches", {"object_ids": object_ids, **more})

    def run(self) -> int:
        return run_all(self.warehouse)

    def documents(self, **body: Any) -> list[dict[str, Any]]:
        return list(self.post("/v1/documents/list", {"limit": 1000, **body})["results"])


MakeShop = Callable[..., Shop]


@pytest.fixture
def shop(client: TestClient, namespace: dict[str, Any], warehouse: Warehouse) -> Shop:
    return Shop(client, warehouse)
