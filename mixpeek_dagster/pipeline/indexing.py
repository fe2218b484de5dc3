"""Bring documents to a vector index that is a projection of the catalog, and make it again: it may be lost, replaced or upgraded."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mixpeek_dagster.models.collections import Collection
from mixpeek_dagster.models.documents import Document
from mixpeek_dagster.pipeline.removal import finish_removals, space_of
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.vectors.index import Point

PAGE = 500


def rebuild(warehouse: Warehouse, collection: Collection, *, progress: Callable[[int], None] = lambda _: None) -> int:
    """Drop a collection's vectors from the index and write them again; how many documents were written.

    Searches find part of the collection while it runs. Safe to repeat after a crash. Does nothing for an index that reads the catalog.

    Args:
        progress: told the number of documents written after every page.
    """
    if not warehouse.index.is_projection:
        return 0
    space = space_of(collection)
    warehouse.index.drop(space)
    warehouse.index.ensure(space)
    finish_removals(warehouse, collection=collection)
    written, after = 0, ""
    while True:
        with warehouse.catalog.reading() as records:
            documents = records.documents.scan(collection.collection_id, after=after, limit=PAGE)
        if not documents:
            return written
        index_documents(warehouse, collection, documents)
        written, after = written + len(documents), documents[-1].document_id
        progress(written)


def index_documents(warehouse: Warehouse, collection: Collection, documents: Sequence[Document]) -> None:
    """Write documents with their vectors into the vector index and mark them indexed; those that went meanwhile go from it again."""
    if not documents:
        return
    with warehouse.catalog.reading() as records:
        vectors = records.documents.vectors_of(documents)
    points = [
        Point(
            document.document_id,
            {name: np.frombuffer(data, "<f4") for name, data in vectors[document.document_id].items()},
            index_payload(document),
        )
        for document in documents
    ]
    warehouse.index.upsert(space_of(collection), points)
    with warehouse.catalog.transaction() as records:
        marked = records.documents.mark_indexed([(document.document_id, document.memo_key) for document in documents])
        gone = set(vectors) - records.documents.existing(vectors) if marked < len(documents) else set()
    if gone:
        warehouse.index.delete(space_of(collection), gone)


def index_payload(document: Document) -> Mapping[str, Any]:
    """What the index carries beside the vectors: the user's fields and the lineage names that filters know."""
    lineage = {
        "root_object_id": document.root_object_id,
        "source_object_id": document.root_object_id,
        "batch_id": document.batch_id,
        "created_at": document.created_at,
    }
    return {**document.payload, **lineage}
