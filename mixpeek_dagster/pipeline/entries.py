"""What a listed file is to the catalog: whether an object holds it, and what of it can be recorded."""

import hashlib
import math

from mixpeek_dagster.catalog.rows import LONGEST_INDEXED
from mixpeek_dagster.models.objects import StoredObject
from mixpeek_dagster.models.values import storable
from mixpeek_dagster.storage.provider import Entry

LARGEST_FILE = 2**53
"""Bytes; no file is larger, and sums of many such sizes still fit the catalog."""


LONGEST_KEY = LONGEST_INDEXED
"""Bytes. Longer ones there are in deep folders and at Azure."""

_DIGEST = 16


def known_as(key: bytes) -> bytes:
    """The key under which the catalog knows a file: its own, or what stands for one that is too long. That sorts among all others as
    the key does, but for those that begin with the same bytes."""
    if len(key) <= LONGEST_KEY:
        return key
    return key[:LONGEST_KEY] + b"~" + hashlib.blake2b(key, digest_size=_DIGEST).hexdigest().encode()


def stands_in(key: bytes) -> bool:
    """Whether a registered key stands for a longer one, which no object is made of."""
    return len(key) == LONGEST_KEY + 1 + 2 * _DIGEST


def behind(key: bytes | None) -> bytes | None:
    """The place in the catalog up to which a listing has come with this key: behind all that stand for keys that begin like a long one."""
    return key if key is None or len(key) <= LONGEST_KEY else key[:LONGEST_KEY] + b"\xff"


def holds(stored: StoredObject, entry: Entry) -> bool:
    """Whether the object holds this revision of the file."""
    blob = stored.blobs[0] if stored.blobs else None
    return blob is not None and (blob.etag, blob.version) == (entry.etag, entry.version)


def is_made_of(stored: StoredObject, entry: Entry, kind: str) -> bool:
    """Whether the object holds this revision of the file, under the property it belongs to now."""
    return holds(stored, entry) and stored.blobs[0].property == kind


def recordable(entry: Entry) -> tuple[Entry, str]:
    """The entry as the catalog can hold it, and why nothing can be made of it where its revision had to be bent for that."""
    if len(entry.key) > LONGEST_KEY:
        held, _ = recordable(entry._replace(key=b""))
        words = f"its key has {len(entry.key)} bytes, and the catalog takes {LONGEST_KEY}; give it a shorter name"
        return held._replace(key=known_as(entry.key)), words
    texts = entry.etag + entry.version + entry.content_type
    if 0 <= entry.size <= LARGEST_FILE and storable(texts) == texts and math.isfinite(entry.modified_at):
        return entry, ""
    held = Entry(
        key=entry.key,
        size=min(max(entry.size, -1), LARGEST_FILE + 1),
        etag=storable(entry.etag),
        version=storable(entry.version),
        modified_at=entry.modified_at if math.isfinite(entry.modified_at) else 0.0,
        content_type=storable(entry.content_type),
        storage_class=entry.storage_class,
    )
    if held[:4] == entry[:4]:
        return held, ""
    if held.size != entry.size:
        said = "less than 0" if held.size < 0 else f"more than {LARGEST_FILE}"
        return held, f"its provider lists a size of {said} bytes, which cannot be true"
    return held, "its ETag or version holds characters that no catalog takes; write the file anew"
