"""Make a vector index again from the catalog: it is a projection, and may be lost, replaced or upgraded at any time."""

from collections.abc import Callable

from mixpeek_dagster.models.collections import Collection
from mixpeek_dagster.pipeline.extraction import index_documents
from mixpeek_dagster.pipeline.removal import finish_removals, space_of
from mixpeek_dagster.pipeline.warehouse import Warehouse

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
