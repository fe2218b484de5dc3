"""A warehouse on each database with documents written straight into the catalog, to list them."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from mixpeek_dagster.models.buckets import Bucket
from mixpeek_dagster.models.collections import Collection, CollectionCreate
from mixpeek_dagster.models.documents import Document, DocumentState, Feature
from mixpeek_dagster.models.ids import DocumentId, document_id
from mixpeek_dagster.models.listing import ListRequest
from mixpeek_dagster.models.namespaces import Namespace
from mixpeek_dagster.pipeline.creation import create_collection
from mixpeek_dagster.pipeline.documents import list_documents
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.settings import Settings
from tests.pipeline.worlds import NOW, STUB, make_bucket, make_namespace, stored_object


class Shelves:
    """A namespace with a bucket and the collections `articles` and `notes`."""

    def __init__(self, warehouse: Warehouse, name: str = "library") -> None:
        self.warehouse = warehouse
        with warehouse.catalog.transaction() as records:
            self.namespace: Namespace = make_namespace(records, name)
            self.bucket: Bucket = make_bucket(records, self.namespace)
        self.articles = self.collection("articles")
        self.notes = self.collection("notes")

    def collection(self, name: str) -> Collection:
        body = {
            "collection_name": name,
            "source": {"type": "bucket", "bucket_ids": [self.bucket.bucket_id]},
            "feature_extractor": {"feature_extractor_name": STUB, "input_mappings": {"text": "content"}},
        }
        with self.warehouse.catalog.transaction() as records:
            created = CollectionCreate.model_validate(body)
            return create_collection(
                records, created, warehouse=self.warehouse, namespace_id=self.namespace.namespace_id, now=NOW
            )

    def put(self, collection: Collection, payloads: Sequence[dict[str, Any]], **lineage: Any) -> list[DocumentId]:
        """One document per payload, a second apart; `at` in a payload is the number of the second."""
        documents = []
        for place, payload in enumerate(payloads):
            payload = dict(payload)
            second = payload.pop("at", place)
            identity = f"{collection.collection_name}-{place}-{sorted(map(str, lineage.values()))}-{second}"
            values: dict[str, Any] = {
                "document_id": document_id(collection.collection_id, identity, 0),
                "namespace_id": self.namespace.namespace_id,
                "collection_id": collection.collection_id,
                "root_bucket_id": self.bucket.bucket_id,
                "identity": identity,
                "position": 0,
                "revision": 1,
                "memo_key": "memo",
                "content_hash": "hash",
                "state": DocumentState.INDEXED,
                "payload": payload,
                "created_at": f"2026-11-22T00:00:{second:02d}.000000Z",
                "updated_at": f"2026-11-22T00:00:{second:02d}.000000Z",
            }
            documents.append(Document(**values | lineage))
        with self.warehouse.catalog.transaction() as records:
            records.documents.put(collection.collection_id, documents)
        return [one.document_id for one in documents]

    def put_object(self, object_id: str) -> None:
        with self.warehouse.catalog.transaction() as records:
            records.objects.add([stored_object(self.bucket, object_id)])

    def put_vectors(self, **vectors: Sequence[float]) -> None:
        """Vectors of every document that has the memo key `memo`."""
        data = {name: np.asarray(numbers, "<f4").tobytes() for name, numbers in vectors.items()}
        with self.warehouse.catalog.transaction() as records:
            records.documents.add_features([Feature("memo", 0, {}, data)], now=NOW)

    def page(self, **body: Any) -> dict[str, Any]:
        request = ListRequest.model_validate(body)
        return list_documents(self.warehouse, request, namespace_id=self.namespace.namespace_id)

    def titles(self, **body: Any) -> list[Any]:
        return [one.get("title") for one in self.page(**body)["results"]]


@pytest.fixture
def shelves(settings: Settings, catalog_url: str) -> Iterator[Shelves]:
    """See `Shelves`; on SQLite and on Postgres."""
    warehouse = Warehouse(settings=_at(settings, catalog_url))
    yield Shelves(warehouse)
    warehouse.close()


def _at(settings: Settings, url: str) -> Settings:
    from dataclasses import replace

    return replace(settings, catalog_url=url)
