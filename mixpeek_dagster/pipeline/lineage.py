"""Where a document comes from: the chain back to its source file, and what made it on the way."""

from dataclasses import dataclass, field
from typing import Any

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.errors import NotFound
from mixpeek_dagster.models.documents import Document
from mixpeek_dagster.models.ids import CollectionId, NamespaceId
from mixpeek_dagster.models.objects import StoredObject
from mixpeek_dagster.models.syncs import Sync
from mixpeek_dagster.pipeline.answers import source_type
from mixpeek_dagster.pipeline.warehouse import Warehouse


@dataclass(frozen=True)
class Link:
    """One document of the chain and the collection, extractor and models that made it."""

    document: Document
    collection: str
    extractor: str
    models: dict[str, dict[str, str]]


@dataclass(frozen=True)
class Explanation:
    """The chain of one document, root first, and the object and file it begins with."""

    links: list[Link]
    stored: StoredObject | None
    source: str | None
    vectors: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Everything, as plain data."""
        blob = self.stored.blobs[0] if self.stored and self.stored.blobs else None
        return {
            "source": None
            if blob is None
            else {
                "place": self.source,
                "file": blob.key or blob.url or blob.filename or "inline",
                "revision": {"etag": blob.etag, "version": blob.version, "size_bytes": blob.size_bytes},
            },
            "object": None if self.stored is None else {"object_id": self.stored.object_id, "revision": self.stored.revision},
            "chain": [
                {
                    "collection": link.collection,
                    "document_id": link.document.document_id,
                    "unit": link.document.position,
                    "extractor": link.extractor,
                    "model_sha256": link.models,
                    "content_sha256": link.document.content_hash,
                    "batch_id": link.document.batch_id,
                    "run_id": link.document.run_id,
                    "written_at": link.document.updated_at,
                }
                for link in self.links
            ],
            "vectors": self.vectors,
        }


def ancestors(records: Records, document: Document) -> list[Document]:
    """The documents it was made from, root first, and itself last."""
    chain = [document]
    while (source := chain[0].source_document_id) is not None:
        above = records.documents.named([source])
        if source not in above:
            break
        chain.insert(0, above[source])
    return chain


def _sync_of(records: Records, stored: StoredObject | None) -> Sync | None:
    if stored is None or stored.sync_id is None:
        return None
    try:
        return records.syncs.get(stored.sync_id)
    except NotFound:
        return None  # deleted meanwhile; its objects stay


def explain(warehouse: Warehouse, document_id: str, *, namespace_id: NamespaceId | None = None) -> Explanation:
    """Where a document and its vectors come from.

    Raises:
        NotFound: there is no such document.
    """
    with warehouse.catalog.reading() as records:
        document = records.documents.named([document_id], namespace_id=namespace_id).get(document_id)
        if document is None:
            raise NotFound(f"No document {document_id!r}.")
        chain = ancestors(records, document)
        collections = {one.collection_id: one for one in records.collections.all(document.namespace_id)}
        stored = records.objects.named([document.root_object_id or ""]).get(document.root_object_id or "")
        sync = _sync_of(records, stored)
        data = records.documents.vectors_of([document])[document.document_id]
    links = []
    for one in chain:
        collection = collections[one.collection_id]
        extractor = warehouse.extractor(collection.feature_extractor)
        name = f"{extractor.name}@{extractor.version}"
        models = {output: dict(files) for output, files in extractor.model_files().items()}
        links.append(Link(one, collection.collection_name, name, models))
    own = collections[document.collection_id]
    vectors = {v.index_name: f"{v.dim}-d, {len(data[v.index_name])} bytes" for v in own.vectors if v.index_name in data}
    return Explanation(links, stored, f"{sync.provider}: {warehouse.source(sync).uri}" if sync else None, vectors)


def lineage(warehouse: Warehouse, document_id: str, *, namespace_id: NamespaceId) -> dict[str, Any]:
    """The chain of one document as the API tells it, root first.

    Raises:
        NotFound: there is no such document.
    """
    with warehouse.catalog.reading() as records:
        document = records.documents.get(document_id, namespace_id=namespace_id)
        chain = ancestors(records, document)
        collections = {one.collection_id: one for one in records.collections.all(namespace_id)}
    steps = [
        {
            "collection_id": one.collection_id,
            "feature_extractor_id": found.feature_extractor.extractor_id
            if (found := collections.get(one.collection_id))
            else None,
            "document_id": one.document_id,
            "timestamp": one.created_at,
        }
        for one in chain
    ]
    return {
        "document_id": document.document_id,
        "collection_id": document.collection_id,
        "lineage": {
            "root_object_id": document.root_object_id,
            "root_bucket_id": document.root_bucket_id,
            "source_type": source_type(document),
            "source_object_id": document.root_object_id,
            "source_document_id": document.source_document_id,
            "source_collection_id": document.source_collection_id,
            "lineage_chain": steps,
        },
        "depth": len(steps) if document.root_object_id or document.source_document_id else 0,
        "total_steps": len(steps),
        "message": f"Made in {len(steps)} step(s) from object {document.root_object_id}."
        if document.root_object_id
        else "Written directly: no object is behind it.",
    }


def decomposition(
    warehouse: Warehouse, object_id: str, *, namespace_id: NamespaceId, include_document_ids: bool
) -> dict[str, Any]:
    """What was made of an object: collections as a tree, each with how many documents it made.

    Raises:
        NotFound: there is no such object.
    """
    with warehouse.catalog.reading() as records:
        stored = records.objects.get(object_id, namespace_id=namespace_id)
        documents = records.documents.of_objects([stored.object_id])
        collections = {one.collection_id: one for one in records.collections.all(namespace_id)}
    made: dict[tuple[str | None, str], list[str]] = {}
    for one in documents:
        made.setdefault((one.source_collection_id, one.collection_id), []).append(one.document_id)

    def below(source: str | None, seen: frozenset[str]) -> list[dict[str, Any]]:
        nodes = []
        for (above, collection_id), ids in made.items():
            if above != source or collection_id in seen:
                continue
            collection = collections[CollectionId(collection_id)]
            node = {
                "collection_id": collection_id,
                "collection_name": collection.collection_name,
                "feature_extractor_id": collection.feature_extractor.extractor_id,
                "document_count": len(ids),
                "children": below(collection_id, seen | {collection_id}),
            }
            nodes.append(node | ({"document_ids": ids} if include_document_ids else {}))
        return nodes

    tree = below(None, frozenset())
    return {"object_id": stored.object_id, "bucket_id": stored.bucket_id, "total_documents": len(documents), "tree": tree}
