"""Parse ListObjectsV2 answers: byte-exact keys, a tenth of the CPU that a general client takes, and nothing taken on trust.

An answer that is cut short, is not XML, or does not say how to go on raises `BadListing`: a short listing taken for a whole one
would delete files.
"""

from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from urllib.parse import unquote_to_bytes
from xml.etree.ElementTree import Element

from mixpeek_dagster.errors import BadListing
from mixpeek_dagster.storage.content_types import guess_content_type
from mixpeek_dagster.storage.provider import Entry, Page
from mixpeek_dagster.storage.xml_answers import parse_xml


def parse_page(chunks: Iterable[bytes], *, what: str) -> Page:
    """One page from the answer's body. `what` names the listing in messages.

    Raises:
        BadListing: the answer cannot be true.
    """
    try:
        return _page(parse_xml(chunks))
    except ValueError as error:
        raise BadListing(f"The listing of {what} {error}.") from error


def _page(root: Element) -> Page:
    name = root.tag.rpartition("}")[2]
    if name != "ListBucketResult":
        raise ValueError(f"is a <{name[:40]}>, not a <ListBucketResult>")
    namespace = root.tag.removesuffix("ListBucketResult")
    truncated = (root.findtext(f"{namespace}IsTruncated") or "").strip().lower()
    if truncated not in ("true", "false"):
        raise ValueError("does not say whether it is the last page (IsTruncated)")
    token = root.findtext(f"{namespace}NextContinuationToken") or None
    if truncated == "true" and token is None:
        raise ValueError("is not the last page, yet has no NextContinuationToken")
    is_encoded = (root.findtext(f"{namespace}EncodingType") or "").strip() == "url"
    key, size, etag, modified, storage = (
        f"{namespace}{name}" for name in ("Key", "Size", "ETag", "LastModified", "StorageClass")
    )
    entries = []
    for item in root.iterfind(f"{namespace}Contents"):
        fields = {field.tag: field.text for field in item}
        try:
            entries.append(
                _entry(fields[key], fields[size], fields.get(etag), fields.get(modified), fields.get(storage), is_encoded)
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError("holds an entry without a valid key, size or time") from error
    return Page(entries, token if truncated == "true" else None)


def _entry(
    text: str | None, size: str | None, etag: str | None, modified: str | None, storage_class: str | None, is_encoded: bool
) -> Entry:
    if not text or not size:
        raise ValueError
    if is_encoded and ("%" in text or "+" in text):
        key = unquote_to_bytes(text.replace("+", " "))  # as botocore does: servers write a space as `+` and a plus as `%2B`
    else:
        key = text.encode()
    return Entry(
        key,
        int(size),
        plain_etag(etag or ""),
        "",
        _timestamp(modified or ""),
        guess_content_type(key),
        storage_class or "STANDARD",
    )


def plain_etag(value: str) -> str:
    """An ETag without its quotes: listings and headers write them differently."""
    return value.strip().strip('"')


@lru_cache(maxsize=1024)
def _timestamp(text: str) -> float:
    return datetime.fromisoformat(text).timestamp() if text else 0.0
