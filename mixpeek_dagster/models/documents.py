"""Documents: the searchable results, each with the whole chain it came from."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from mixpeek_dagster.models.ids import BucketId, CollectionId, DocumentId, NamespaceId, ObjectId
from mixpeek_dagster.models.values import Value


class DocumentState(StrEnum):
    """PENDING is recorded but not in the vector index yet; DELETING is on its way out of it."""

    PENDING = "pending"
    INDEXED = "indexed"
    DELETING = "deleting"


class Document(Value):
    """A document as recorded. `payload` holds the user's fields; all the rest is lineage."""

    document_id: DocumentId
    namespace_id: NamespaceId
    collection_id: CollectionId
    root_bucket_id: BucketId | None = None
    root_object_id: ObjectId | None = None
    source_document_id: DocumentId | None = None
    source_collection_id: CollectionId | None = None
    partition_key: str | None = None
    run_id: str | None = None
    identity: str
    position: int
    revision: int
    memo_key: str
    content_hash: str
    state: DocumentState
    payload: dict[str, Any]
    created_at: str
    updated_at: str

    @property
    def batch_id(self) -> str | None:
        return self.partition_key.partition(".")[0] if self.partition_key else None


class Feature(NamedTuple):
    """What an extractor made of one unit of one content: found again by `memo_key`, shared by all documents with that content.

    `vectors` maps index names to little-endian float32 bytes.
    """

    memo_key: str
    position: int
    fields: Mapping[str, Any]
    vectors: Mapping[str, bytes]
