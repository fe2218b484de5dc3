"""The port to other people's files: list them in pages, look at one, open one.

Vendors differ by `Capabilities`, never by type checks. A source knows no catalog, no bucket and no Dagster.
`Provider` is what a vendor's class offers on top: a `Config` and a way to build a source from it (`storage.connect` uses it).
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import BinaryIO, Literal, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel

from mixpeek_dagster.errors import Archived
from mixpeek_dagster.settings import Settings


class Entry(NamedTuple):
    """One file as a listing shows it. `key` is the provider's own key, as bytes, never normalised.

    `etag` and `version` are opaque revision marks; together with `size` they decide whether a file changed, and a listing and
    `head` agree on them. `modified_at` (unix seconds) is shown and filtered on, never compared. `content_type` is what the
    provider says, else guessed from the key's extension, else empty. Folder markers (`videos/`, 0 bytes) are listed like any key.
    """

    key: bytes
    size: int
    etag: str
    version: str = ""
    modified_at: float = 0.0
    content_type: str = ""
    storage_class: str = ""


class Page(NamedTuple):
    """One page of a listing, possibly shorter than asked for, even empty. `token` continues it at the provider; None ends it.

    `digest` is a hash of all that the page says about files, and of whether it is the last, where the source has one: equal digests
    are equal pages.
    """

    entries: Sequence[Entry]
    token: str | None
    digest: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """How a provider's listing behaves.

    Attributes:
        order: `bytes` when keys are promised in ascending byte order (it is checked all the same), else `unordered`.
        start_after: a listing can be resumed after a key, without a token.
        presign: the provider can hand out time-limited URLs.
        digests: pages have a `digest`.
        feed: it tells of changes before a listing does (`feed.FeedSource`).
        shows_restored: an archived file that can be read for a while is listed with a class that can be read.
    """

    order: Literal["bytes", "unordered"]
    start_after: bool
    presign: bool = False
    digests: bool = False
    feed: bool = False
    shows_restored: bool = False


class ObjectSource(Protocol):
    """A place where files are. Implementations are safe to share between threads.

    Every method raises `AccessDenied` (credentials refused), `WrongConnection` (no such bucket, another region, a bad
    certificate), `ProviderDown` (unreachable, throttled, 5xx; after the client's own retries), `BadListing` (an answer that
    cannot be true) or `UrlRefused` (an address that may not be reached); messages name the key or prefix and hold no secret.
    """

    @property
    def capabilities(self) -> Capabilities:
        """What this source's listing and URLs can do."""
        ...

    @property
    def uri(self) -> str:
        """What is listed, for people: `s3://bucket/prefix`, `file:///folder`."""
        ...

    def list_page(self, *, after: bytes | None = None, token: str | None = None, limit: int = 1000, known: bytes = b"") -> Page:
        """The next page: after `token` when it is given, else after the key `after`, else from the start.

        A source with `capabilities.digests` need not read a page whose digest is `known`: such a page comes without entries.
        To the others it means nothing.

        A provider that breaks its promise (keys out of order, or not above `after`) is passed on as it answered: hiding such
        keys would lose files, so the caller checks.
        """
        ...

    def head(self, key: bytes) -> Entry | None:
        """The file as it is now; None only when the provider says that it does not exist, or the key is none of this source's: a
        listing from its path could never name it."""
        ...

    def open(
        self, key: bytes, *, if_match: Entry | None = None, start: int = 0, length: int | None = None
    ) -> AbstractContextManager[BinaryIO]:
        """Stream a file, or the part of it that begins at byte `start` and has at most `length` bytes: as a slice does, also one that
        ends behind the end or begins there. A `length` is at least 1.

        Raises:
            FileNotFoundError: it is gone.
            Changed: it is not the revision `if_match` any more, or it changed while it was read (then raised on leaving).
            Archived: it must be restored at the provider before it can be read.
        """
        ...

    def relative(self, key: bytes) -> str:
        """The key below the source path, as text for filters and metadata (undecodable bytes as surrogate escapes)."""
        ...

    def location(self, key: bytes) -> str:
        """Where the file is, distinct across sources of one provider, for people and as a stable id: `s3://bucket/key`."""
        ...

    def check(self) -> bool:
        """Prove that the source can be listed and read, or raise what is wrong and how to mend it; False when it named no file to read."""
        ...


def reads_a_file(source: ObjectSource) -> bool:
    """`ObjectSource.check` by one listing and the first byte of the file that it names."""
    entries = source.list_page(limit=1).entries
    for entry in entries:
        with suppress(Archived, FileNotFoundError), source.open(entry.key, length=1) as stream:  # readable, but for this file
            stream.read(1)
    return bool(entries)


ConfigT_contra = TypeVar("ConfigT_contra", bound=BaseModel, contravariant=True)


class Provider(Protocol[ConfigT_contra]):
    """A vendor's class: what `plugins.load("providers", name)` returns. It also has an attribute `Config`, its pydantic model.

    One that sets `rotates_tokens` gets `tokens`, a `TokenKeeper`, as another argument of `connect`.
    """

    def connect(self, config: ConfigT_contra, *, source_path: str, settings: Settings) -> ObjectSource:
        """Build a source from a validated `Config`; `source_path` as the user wrote it (`/videos/`, `bucket/prefix`). No network.

        Raises:
            Invalid: the path does not fit, or the operator's settings forbid the place.
        """
        ...
