"""Bring documents to a vector index that is a projection of the catalog, and make it again: it may be lost, replaced or upgraded."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mixpeek_dagster.models.collections import Collection
from mixpeek_dagster.models.documents import Document, DocumentState
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
    """Write documents with their vectors into the vector index and mark them indexed. Those that went meanwhile go from it again; those
    that a faster run has written anew are pending again, as it may have been here before."""
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
        if marked == len(documents):
            return
        now = records.documents.named(vectors)
        changed = [one.document_id for one in documents if one.document_id in now and not _is_as(one, now[one.document_id])]
        records.documents.set_state(changed, DocumentState.PENDING, now=warehouse.now())
    gone = vectors.keys() - now.keys()
    if gone:
        warehouse.index.delete(space_of(collection), gone)


def _is_as(written: Document, document: Document) -> bool:
    return (written.memo_key, index_payload(written)) == (document.memo_key, index_payload(document))


def index_payload(document: Document) -> Mapping[str, Any]:
    """What the index carries beside the vectors: the user's fields and the lineage names that filters know."""
    lineage = {
        "root_object_id": document.root_object_id,
        "source_object_id": document.root_object_id,
        "batch_id": document.batch_id,
        "created_at": document.created_at,
    }
    return {**document.payload, **lineage}
