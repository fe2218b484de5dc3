"""Parse ListObjectsV2 answers: byte-exact keys, a thirtieth of the CPU that a general client takes, and nothing taken on trust.

An answer that is cut short, is not XML, or does not say how to go on raises `BadListing`: a short listing taken for a whole one
would delete files. The entries of a page are read by one regular expression where every one of them has the same plain layout;
whatever looks otherwise is left to the XML parser. What stands around the entries always goes through the XML parser.
"""

import re
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache, partial
from hashlib import sha256
from itertools import repeat
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from mixpeek_dagster.errors import BadListing
from mixpeek_dagster.storage.content_types import guess_content_type
from mixpeek_dagster.storage.provider import Entry, Page
from mixpeek_dagster.storage.xml_answers import parse_xml, read_whole

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

START, STOP = b"<Contents>", b"</Contents>"
_TAG = re.compile(rb"<(/?[A-Za-z0-9]+)>")
_WANTED = (b"Key", b"Size", b"ETag", b"LastModified", b"StorageClass", b"IsRestoreInProgress")
_NEEDED = (b"Key", b"Size")
_make_entry = partial(tuple.__new__, Entry)  # skips the class's own __new__, which is written in Python


def parse_page(chunks: Iterable[bytes], *, what: str, known: bytes = b"") -> Page:
    """One page from the answer's body. `what` names the listing in messages; `known` is as in `ObjectSource.list_page`.

    Raises:
        BadListing: the answer cannot be true.
    """
    try:
        body = read_whole(chunks)
        start, stop = body.find(START), body.rfind(STOP) + len(STOP)
        if start < 0 or stop < start:
            return _page(parse_xml([body]))
        frame = _Frame(parse_xml([body[:start], body[stop:]]))
        digest = sha256(memoryview(body)[start:stop])
        digest.update(b"url" * frame.is_encoded + b"last" * (frame.token is None))
        if digest.digest() == known:
            return Page((), frame.token, known)
        entries = _plain_entries(body, start, stop) if frame.is_encoded else None
        return Page(_entries(parse_xml([body]), frame) if entries is None else entries, frame.token, digest.digest())
    except ValueError as error:
        raise BadListing(f"The listing of {what} {error}.") from error


class _Frame:
    """What an answer says besides its entries."""

    def __init__(self, root: "Element") -> None:
        name = root.tag.rpartition("}")[2]
        if name != "ListBucketResult":
            raise ValueError(f"is a <{name[:40]}>, not a <ListBucketResult>")
        self.namespace = namespace = root.tag.removesuffix("ListBucketResult")
        truncated = (root.findtext(f"{namespace}IsTruncated") or "").strip().lower()
        if truncated not in ("true", "false"):
            raise ValueError("does not say whether it is the last page (IsTruncated)")
        token = root.findtext(f"{namespace}NextContinuationToken") or None
        if truncated == "true" and token is None:
            raise ValueError("is not the last page, yet has no NextContinuationToken")
        self.token = token if truncated == "true" else None
        self.is_encoded = (root.findtext(f"{namespace}EncodingType") or "").strip() == "url"


def _page(root: "Element") -> Page:
    frame = _Frame(root)
    return Page(_entries(root, frame), frame.token)


def _entries(root: "Element", frame: _Frame) -> list[Entry]:
    key, size, etag, modified, storage = (
        f"{frame.namespace}{name}" for name in ("Key", "Size", "ETag", "LastModified", "StorageClass")
    )
    status, restoring = (f"{frame.namespace}{name}" for name in ("RestoreStatus", "IsRestoreInProgress"))
    entries = []
    for item in root.iterfind(f"{frame.namespace}Contents"):
        fields = {field.tag: field.text for field in item}
        kind = _class(fields.get(storage), item.findtext(f"{status}/{restoring}") if status in fields else None)
        try:
            entries.append(_entry(fields[key], fields[size], fields.get(etag), fields.get(modified), kind, frame.is_encoded))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError("holds an entry without a valid key, size or time") from error
    return entries


def _entry(
    text: str | None, size: str | None, etag: str | None, modified: str | None, storage_class: str, is_encoded: bool
) -> Entry:
    if not text or not size:
        raise ValueError
    key = _decoded(text.encode()) if is_encoded else text.encode()
    time = _timestamp((modified or "").encode())
    return Entry(key, int(size), plain_etag(etag or ""), "", time, guess_content_type(key), storage_class)


def _class(storage_class: str | None, is_restoring: str | None) -> str:
    """The class that a file can be read as: that of one which is restored from the archive for a while is STANDARD.

    `is_restoring` is None where nobody has asked for the file to be restored, or the copy has expired.
    """
    return "STANDARD" if is_restoring == "false" else storage_class or "STANDARD"


def _plain_entries(body: bytes, start: int, stop: int) -> list[Entry] | None:
    """The entries in `body[start:stop]`, their keys URL-encoded; None when the XML parser has to look.

    Plain is: ASCII, no comments, sections or references but &quot;, nothing between entries, and every entry laid out as the first.
    """
    tags = tuple(_TAG.findall(body, start + len(START), body.find(STOP)))
    if not body.isascii() or any(tags.count(name) != 1 for name in _NEEDED):
        return None
    # A list of what stands around and between the entries and, in turns with it, the fields of each.
    layout = _layout(tags)
    parts = layout.split(body)
    width = layout.groups + 1
    if len(parts[0]) != start or len(parts[-1]) != len(body) - stop or any(parts[width:-1:width]):
        return None
    columns = {name: parts[at::width] for name, at in layout.groupindex.items()}
    nothing = [b""] * (len(parts) // width)
    keys, etags, classes = (_joined(columns.get(name, nothing)) for name in ("Key", "ETag", "StorageClass"))
    restoring = _joined(columns.get("IsRestoreInProgress", ()))
    etags = etags.replace(b"&quot;", b'"')
    if not all(columns["Key"]) or b"&" in keys + etags + classes + restoring:
        return None
    try:
        sizes = list(map(int, columns["Size"]))
        times = [_timestamp(one or b"") for one in columns.get("LastModified", nothing)]
    except ValueError:
        return None
    # As `_decoded` and `plain_etag` do, all at once: nothing of it holds a `<`.
    names = [unquote_to_bytes(one) if b"%" in one else one for one in keys.replace(b"+", b" ").split(b"<")]
    marks = [one.strip().strip('"') for one in etags.decode().split("<")]
    kinds = [one or "STANDARD" for one in classes.decode().split("<")]
    if restoring:
        kinds = list(map(_class, kinds, restoring.decode().split("<")))
    return list(map(_make_entry, zip(names, sizes, marks, repeat(""), times, map(guess_content_type, names), kinds)))


def _joined(values: Iterable[bytes | None]) -> bytes:
    return b"<".join([one or b"" for one in values])


@lru_cache(maxsize=64)
def _layout(tags: tuple[bytes, ...]) -> re.Pattern[bytes]:
    """What matches an entry with these tags inside; all but Key and Size may be left out."""
    pattern = b""
    for tag in tags:
        name = tag.removeprefix(b"/")
        if tag != name:
            pattern += b"</%b>" % name + (b"" if name in _NEEDED else b")?")
        else:
            field = b"(?P<%b>[^<]*)" % name if name in _WANTED else b"[^<]*"
            pattern += (b"" if name in _NEEDED else b"(?:") + b"<%b>" % name + field
    return re.compile(START + pattern + STOP)


def _decoded(text: bytes) -> bytes:
    """As botocore does: servers write a space as `+` and a plus as `%2B`."""
    return unquote_to_bytes(text.replace(b"+", b" ")) if b"%" in text or b"+" in text else text


def plain_etag(value: str) -> str:
    """An ETag without its quotes: listings and headers write them differently."""
    return value.strip().strip('"')


@lru_cache(maxsize=1024)
def _timestamp(text: bytes) -> float:
    return datetime.fromisoformat(text.decode()).timestamp() if text else 0.0
