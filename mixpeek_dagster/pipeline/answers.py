"""Documents as clients see them: the user's fields at the root, blobs of the source object, and `_internal` with the lineage."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.models.collections import Collection
from mixpeek_dagster.models.comparison import reached
from mixpeek_dagster.models.documents import Document
from mixpeek_dagster.models.ids import CollectionId, NamespaceId
from mixpeek_dagster.models.objects import Blob, StoredObject

Presign = Callable[[StoredObject, int], str | None]
"""A URL of one blob of an object that works without a key."""

RESERVED = frozenset({"document_id", "collection_id", "document_blobs", "vectors"})


def lineage_of(document: Document) -> dict[str, Any]:
    """The flat names of a document's lineage, as filters, sort and group_by know them."""
    return {
        "document_id": document.document_id,
        "collection_id": document.collection_id,
        "namespace_id": document.namespace_id,
        "root_object_id": document.root_object_id,
        "root_bucket_id": document.root_bucket_id,
        "source_object_id": document.root_object_id,
        "object_id": document.root_object_id,
        "bucket_id": document.root_bucket_id,
        "source_document_id": document.source_document_id,
        "source_collection_id": document.source_collection_id,
        "partition_key": document.partition_key,
        "batch_id": document.batch_id,
        "run_id": document.run_id,
        "revision": document.revision,
        "content_hash": document.content_hash,
        "created_at": document.created_at,
        "updated_at": document.updated_at,
    }


def flat_record(document: Document) -> dict[str, Any]:
    """A document as the filter language sees it: its payload, and the names of its lineage, which win."""
    lineage = lineage_of(document)
    named = {f"_internal.{name}": value for name, value in lineage.items()}
    return {**document.payload, **lineage, **named, **{f"_internal.lineage.{name}": value for name, value in lineage.items()}}


class DocumentView:
    """Turns documents of one namespace into answers; what it needs beside them it reads once per page.

    Args:
        presign: fills `presigned_url` of blobs.
        vectors: answers hold `vectors`, name → numbers.
        vector_names: True adds `_vectors`, the names; a list adds those vectors only. Names are index names or feature URIs.
        select: dotted fields to keep; ids stay.
        collections: those of the namespace, where they have been read already.
    """

    def __init__(
        self,
        records: Records,
        *,
        namespace_id: NamespaceId,
        presign: Presign | None = None,
        vectors: bool = False,
        vector_names: bool | Sequence[str] = False,
        select: Sequence[str] | None = None,
        collections: Sequence[Collection] | None = None,
    ) -> None:
        self._records = records
        every = records.collections.all(namespace_id) if collections is None else collections
        self._collections = {one.collection_id: one for one in every}
        self._presign = presign
        self._names = list(vector_names) if isinstance(vector_names, Sequence) else []
        self._vectors = vectors or bool(self._names)
        self._all_vectors = vectors
        self._with_names = vector_names is True
        self._select = select
        self.average_blobs = 0.0

    def answers(self, documents: Sequence[Document]) -> list[dict[str, Any]]:
        """In the order given."""
        objects = self._records.objects.named({one.root_object_id for one in documents if one.root_object_id})
        vectors = self._records.documents.vectors_of(documents) if self._vectors else {}
        names = self._records.listing.vector_names(documents) if self._with_names else {}
        answers, blobs = [], 0
        for document in documents:
            stored = objects.get(document.root_object_id or "")
            answer = self._answer(document, stored)
            blobs += len(answer["document_blobs"])
            if self._select is not None:
                answer = selected(answer, lineage_of(document), self._select)
            if self._vectors:
                answer["vectors"] = self._numbers(document, vectors[document.document_id])
            if self._with_names:
                answer["_vectors"] = names[document.document_id]
            answers.append(answer)
        self.average_blobs = blobs / len(documents) if documents else 0.0
        return answers

    def _answer(self, document: Document, stored: StoredObject | None) -> dict[str, Any]:
        own = {key: value for key, value in document.payload.items() if key not in RESERVED and key != "_internal"}
        blobs = [self._blob(stored, place, blob) for place, blob in enumerate(stored.blobs)] if stored else []
        return {
            "document_id": document.document_id,
            "collection_id": document.collection_id,
            **own,
            "document_blobs": blobs,
            "_internal": self._internal(document, stored, blobs),
        }

    def _internal(self, document: Document, stored: StoredObject | None, blobs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        first = blobs[0] if blobs else {}
        path, chain = self._chain(document)
        return {
            "namespace_id": document.namespace_id,
            "document_id": document.document_id,
            "collection_id": document.collection_id,
            "created_at": document.created_at,
            "updated_at": document.updated_at,
            "modality": first.get("type"),
            "mime_type": first.get("content_type"),
            "size_bytes": first.get("size_bytes"),
            "content_hash": document.content_hash,
            "lineage": {
                "root_object_id": document.root_object_id,
                "root_bucket_id": document.root_bucket_id,
                "source_type": source_type(document),
                "source_object_id": document.root_object_id,
                "source_document_id": document.source_document_id,
                "source_collection_id": document.source_collection_id,
                "batch_id": document.batch_id,
                "run_id": document.run_id,
                "path": path,
                "chain": chain,
            },
            "processing": {"source_url": first.get("url"), "detected_mime_type": first.get("content_type")},
            "source_blobs": blobs,
            "metadata": stored.fields if stored else {},
        }

    def _chain(self, document: Document) -> tuple[str, list[dict[str, Any]]]:
        """The collections it went through, root first; those above its source only as far as there is no choice."""
        steps: list[dict[str, Any]] = [self._step(document.collection_id, document.document_id, document.created_at)]
        above = document.source_collection_id
        if above is not None:
            steps.insert(0, self._step(above, document.source_document_id, None))
        seen = {document.collection_id, above}
        while above is not None and (collection := self._collections.get(above)) is not None:
            sources = collection.source.collection_ids
            if len(sources) != 1 or sources[0] in seen:
                break
            above = sources[0]
            seen.add(above)
            steps.insert(0, self._step(above, None, None))
        names = [one for one in (document.root_bucket_id, *(step["collection_id"] for step in steps)) if one]
        return "/".join(names), steps

    def _step(self, collection_id: CollectionId, document_id: str | None, at: str | None) -> dict[str, Any]:
        collection: Collection | None = self._collections.get(collection_id)
        extractor = collection.feature_extractor.extractor_id if collection else ""
        return {
            "collection_id": collection_id,
            "feature_extractor_id": extractor,
            "document_id": document_id,
            "timestamp": at,
        }

    def _blob(self, stored: StoredObject, place: int, blob: Blob) -> dict[str, Any]:
        return {
            "field": blob.property,
            "role": "source",
            "type": blob.type.value,
            "url": blob.url or f"mixpeek://{stored.bucket_id}/{stored.object_id}/{blob.property}",
            "filename": readable(blob.filename) or None,
            "size_bytes": blob.size_bytes,
            "content_type": blob.mime_type or None,
            "checksum": blob.etag or None,
            "created_at": stored.created_at,
            "presigned_url": self._presign(stored, place) if self._presign else None,
        }

    def _numbers(self, document: Document, vectors: Mapping[str, bytes]) -> dict[str, list[float]]:
        names = set(vectors)
        if not self._all_vectors:
            collection = self._collections.get(document.collection_id)
            uris = {
                one.index_name: (one.index_name, one.feature_uri, one.output)
                for one in (collection.vectors if collection else ())
            }
            names = {name for name in vectors if set(uris.get(name, (name,))) & set(self._names)}
        return {name: np.frombuffer(vectors[name], "<f4").astype(float).tolist() for name in sorted(names)}


def source_type(document: Document) -> str:
    """What a document was made from, in the SDK's words."""
    if document.source_document_id is not None:
        return "collection"
    return "bucket" if document.root_object_id is not None else "direct_upsert"


def readable(name: str) -> str:
    """A file name without the half surrogates that undecodable bytes were kept as: JSON cannot hold them."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def selected(answer: Mapping[str, Any], lineage: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """The fields that are named, nested as they were; the ids always stay."""
    kept: dict[str, Any] = {name: answer[name] for name in ("document_id", "collection_id")}
    for field in fields:
        if field in answer:
            kept[field] = answer[field]
        elif field in lineage:
            kept[field] = lineage[field]
        else:
            _keep(kept, answer, field.split("."))
    return kept


def _keep(kept: dict[str, Any], source: Mapping[str, Any], path: Sequence[str]) -> None:
    """Copy what is at a path; a path through an array takes the values of its objects."""
    target = kept
    for place, step in enumerate(path):
        if not isinstance(source, Mapping) or step not in source:
            return
        value = source[step]
        rest = path[place + 1 :]
        if not rest:
            target[step] = value
        elif isinstance(value, Mapping):
            inner = target.get(step)
            target[step] = target = dict(inner) if isinstance(inner, Mapping) and inner is not value else {}
            source = value
        else:
            if isinstance(value, list) and (found := reached({step: value}, [step, *rest])):
                target[step] = _nested(rest, found)
            return


def _nested(path: Sequence[str], values: list[Any]) -> list[Any]:
    nested = []
    for value in values:
        for step in reversed(path):
            value = {step: value}
        nested.append(value)
    return nested
