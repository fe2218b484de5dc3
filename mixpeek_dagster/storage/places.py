"""Where a source is: the server, and the place in a bucket or container; how people write it, and what that means as a key prefix."""

from typing import Annotated, NamedTuple

from pydantic import AfterValidator

from mixpeek_dagster.errors import Invalid


def _is_plain(url: str) -> str:
    if not {"?", "#", "@"}.isdisjoint(url):
        raise ValueError("the address of a server has no ?, # or @: what is secret, such as a SAS token, goes into credentials")
    return url


ServerUrl = Annotated[str, AfterValidator(_is_plain)]
"""The base URL of a server in a connection's settings. It is stored and shown in plain, so it may hold no secret."""


class Place(NamedTuple):
    """A bucket and the key prefix below which everything belongs to the source."""

    bucket: str
    prefix: str

    @property
    def parent(self) -> int:
        """Bytes of a key that are not part of the path below the source: the prefix up to its last `/`."""
        return len(self.prefix[: self.prefix.rfind("/") + 1].encode())

    def holds(self, key: bytes) -> bool:
        """Whether a key is below the prefix."""
        return key.startswith(self.prefix.encode())


def place_of(source_path: str, *, bucket: str | None, prefix: str = "") -> Place:
    """Read a source path: `/videos/` relative to the connection's bucket, or `bucket/videos` (`s3://bucket/videos`) without one.

    A path is a folder: `videos` does not take in `videos-old/x`. A last `*` makes it a plain prefix: `videos/2026-*`. The
    connection's `prefix` is put before it; without a path it is taken as it is. Where the connection names the bucket, a folder of the
    same name has to be written with a slash before it, since others write the bucket there.

    Raises:
        Invalid: no bucket is named, or two different ones, or the bucket's name may be a folder.
    """
    has_scheme = "://" in source_path
    path = source_path.partition("://")[2] if has_scheme else source_path
    if bucket is not None and bucket == path.partition("/")[0] and not has_scheme:
        below = "/" + path.partition("/")[2]
        raise Invalid(
            f"source_path {path!r} begins with the bucket's own name: write {below!r}, or {'/' + path!r} if the bucket has such a folder."
        )
    path = path.lstrip("/")
    if has_scheme or bucket is None:
        named, _, path = path.partition("/")
        if bucket not in (None, named):
            raise Invalid(f"source_path names bucket {named!r}, the connection names {bucket!r}.")
        bucket = named
        path = path.lstrip("/")
    if not bucket:
        raise Invalid("No bucket: give it in the connection, or a source_path of the form bucket/prefix.")
    if path.endswith("*"):
        path = path[:-1]
    elif path and not path.endswith("/"):
        path += "/"
    if prefix and path and not prefix.endswith("/"):
        prefix += "/"
    return Place(bucket, prefix + path)
