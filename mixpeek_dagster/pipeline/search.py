"""Ask the warehouse something: nearest documents to a text, a file or a vector."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.catalog.listing import Scope
from mixpeek_dagster.errors import Invalid
from mixpeek_dagster.models.collections import Collection, VectorSpec
from mixpeek_dagster.models.documents import Document
from mixpeek_dagster.models.filters import Filter
from mixpeek_dagster.models.ids import DocumentId, NamespaceId
from mixpeek_dagster.pipeline.removal import space_of
from mixpeek_dagster.pipeline.warehouse import Warehouse

EVERYTHING: Final = Filter()


@dataclass(frozen=True)
class Found:
    """One document and its cosine similarity, -1..1; `output` says which of its vectors was compared."""

    document: Document
    score: float
    output: str


def search(
    warehouse: Warehouse,
    query: str | bytes | Sequence[float],
    *,
    namespace_id: NamespaceId,
    collections: Sequence[str] = (),
    feature_uri: str | None = None,
    top_k: int = 10,
    filter: Filter = EVERYTHING,
) -> list[Found]:
    """The nearest documents, best first.

    Args:
        query: a text, the bytes of a file (an image), or a vector.
        collections: ids or names to search; all of the namespace when empty.
        feature_uri: which vectors to compare with (`mixpeek://text_extractor@v1/embedding`); by default every one that the
            query's kind can be compared with.
        filter: only documents that pass it.

    Raises:
        NotFound: a collection does not exist.
        Invalid: no collection has a vector that this query can be compared with.
    """
    with warehouse.catalog.reading() as records:
        if collections:
            chosen = [records.collections.get(one, namespace_id=namespace_id) for one in collections]
        else:
            chosen = records.collections.all(namespace_id)
        among = None if filter.is_empty else {one.collection_id: set(_passing(records, one, filter)) for one in chosen}
    kind = _Kind.of(query)
    targets = [
        (collection, vector)
        for collection in chosen
        for vector in collection.vectors
        if (_names(vector, feature_uri) if feature_uri else kind.suits(vector)) and kind.dim in (None, vector.dim)
    ]
    if not targets:
        known = sorted({vector.feature_uri for collection in chosen for vector in collection.vectors})
        wanted = feature_uri or f"a vector that {kind.words} can be compared with"
        raise Invalid(f"None of the {len(chosen)} collections has {wanted}. They have: {', '.join(known) or 'no vectors'}.")
    hits: list[tuple[float, str, str]] = []
    for collection, vector in targets:
        allowed = None if among is None else among[collection.collection_id]
        if allowed == set():
            continue
        if isinstance(query, str | bytes):
            embedded = warehouse.extractor(collection.feature_extractor).embed_query(query, output=vector.output)
        else:
            embedded = np.asarray(query, dtype=np.float32)
        found = warehouse.index.search(space_of(collection), vector.index_name, embedded, top_k=top_k, among=allowed)
        hits += [(hit.score, hit.document_id, vector.index_name) for hit in found]
    best = sorted(hits, key=lambda hit: (-hit[0], hit[1]))[:top_k]
    with warehouse.catalog.reading() as records:
        documents = records.documents.named([document_id for _, document_id, _ in best], namespace_id=namespace_id)
    return [Found(documents[one], score, name) for score, one, name in best if one in documents]


@dataclass(frozen=True)
class _Kind:
    """What a query is: its modality; or for a vector, its dimension."""

    modality: str
    dim: int | None = None

    @classmethod
    def of(cls, query: str | bytes | Sequence[float]) -> "_Kind":
        if isinstance(query, str):
            return cls("text")
        return cls("image") if isinstance(query, bytes) else cls("vector", len(query))

    def suits(self, vector: VectorSpec) -> bool:
        return self.dim is not None or vector.modality in (self.modality, "multimodal")

    @property
    def words(self) -> str:
        return self.modality if self.dim is None else f"{self.dim} numbers"


def _passing(records: Records, collection: Collection, filter: Filter) -> list[DocumentId]:
    ids = [collection.collection_id]
    return records.listing.ids(Scope(namespace_id=collection.namespace_id, collection_ids=ids, filter=filter))


def _names(vector: VectorSpec, uri: str) -> bool:
    return uri in (vector.feature_uri, vector.index_name)
