"""Identifiers: one type and one prefix per kind of record."""

import hashlib
import os
import uuid
from typing import NewType

NamespaceId = NewType("NamespaceId", str)
BucketId = NewType("BucketId", str)
ObjectId = NewType("ObjectId", str)
BlobId = NewType("BlobId", str)
UploadId = NewType("UploadId", str)
BatchId = NewType("BatchId", str)
CollectionId = NewType("CollectionId", str)
DocumentId = NewType("DocumentId", str)
TaskId = NewType("TaskId", str)
ConnectionId = NewType("ConnectionId", str)
SyncId = NewType("SyncId", str)
SyncJobId = NewType("SyncJobId", str)

_CHARACTERS = bytes(b"0123456789abcdefghijklmnopqrstuvwxyz"[byte % 36] for byte in range(256))
_DOCUMENTS = uuid.UUID("5f3c9f0e-6f0b-5c1b-9a1e-7f6b2f6a9d10")


def new_id(prefix: str, *, length: int = 16) -> str:
    """A random id such as `obj_k3v09x…`; 16 base-36 characters carry 82 bits."""
    return f"{prefix}_{os.urandom(length).translate(_CHARACTERS).decode()}"


def derived_id(prefix: str, *parts: str) -> str:
    """An id that the same parts always give: the same work, done twice, makes the same records."""
    digest = hashlib.blake2b("\x1f".join(parts).encode("utf-8", "surrogateescape"), digest_size=15).hexdigest()
    return f"{prefix}_{digest}"


def document_id(collection_id: CollectionId, identity: str, position: int) -> DocumentId:
    """The id of one document: deterministic over its collection, the identity of what it was made from, and its place in that."""
    return DocumentId("doc_" + uuid.uuid5(_DOCUMENTS, f"{collection_id}\x1f{identity}\x1f{position}").hex)
