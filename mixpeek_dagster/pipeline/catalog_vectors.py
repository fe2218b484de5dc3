"""The catalog's own vectors, as a vector index may read them."""

from collections.abc import Iterator

from mixpeek_dagster.catalog import Catalog
from mixpeek_dagster.models.ids import CollectionId
from mixpeek_dagster.vectors.index import Stamp, VectorRow


class CatalogVectors:
    """`vectors.index.VectorRows` over a catalog; every call reads a snapshot of its own."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def stamp(self, collection_id: str, output: str) -> Stamp:
        with self._catalog.reading() as records:
            return Stamp(*records.documents.stamp(collection_id))

    def vectors(self, collection_id: str, output: str, *, after_seq: int) -> Iterator[VectorRow]:
        with self._catalog.reading() as records:
            for row in records.documents.vectors(collection_id, output, after_seq=after_seq):
                yield VectorRow(*row)

    def count(self, collection_id: str) -> int:
        with self._catalog.reading() as records:
            return records.documents.count(collection_id)

    def ids(self, collection_id: str) -> Iterator[str]:
        with self._catalog.reading() as records:
            yield from records.documents.ids(CollectionId(collection_id))
