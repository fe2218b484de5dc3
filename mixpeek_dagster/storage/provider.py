"""The port to other people's files: list them in pages, look at one, open one.

Vendors differ by `Capabilities`, never by type checks. A source knows no catalog, no bucket and no Dagster.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, ClassVar, Literal, NamedTuple, Protocol, Self

from pydantic import BaseModel


class Entry(NamedTuple):
    """One file as a listing shows it. `key` is relative to nothing: the provider's own full key, as bytes, never normalised.

    `etag` and `version` are opaque revision marks; together with `size` they decide whether a file changed. `modified_at`
    (unix seconds) is shown and filtered on, never compared.
    """

    key: bytes
    size: int
    etag: str
    version: str = ""
    modified_at: float = 0.0
    content_type: str = ""
    storage_class: str = ""


class Page(NamedTuple):
    """One page of a listing. `token` continues it at the provider; None ends it."""

    entries: Sequence[Entry]
    token: str | None


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """How a provider's listing behaves.

    Attributes:
        order: `bytes` when keys are promised in ascending byte order (it is checked all the same), else `unordered`.
        start_after: a listing can be resumed after a key, without a token.
        presign: the provider can hand out time-limited URLs.
    """

    order: Literal["bytes", "unordered"]
    start_after: bool
    presign: bool = False


class ObjectSource(Protocol):
    """A place where files are. Implementations are safe to share between threads.

    Every method raises `AccessDenied` (credentials refused), `ProviderDown` (unreachable, throttled, 5xx; after the client's own
    retries), or `BadListing` (an answer that cannot be true); messages name the key or prefix and hold no secret.
    """

    Config: ClassVar[type[BaseModel]]
    capabilities: Capabilities

    @classmethod
    def connect(cls, config: BaseModel, *, source_path: str) -> Self:
        """Build from a validated `Config`; `source_path` as the user wrote it (`/videos/`, `bucket/prefix`). No I/O."""
        ...

    @property
    def uri(self) -> str:
        """What is listed, for people: `s3://bucket/prefix`, `file:///folder`."""
        ...

    def list_page(self, *, after: bytes | None = None, token: str | None = None, limit: int = 1000) -> Page:
        """The next page: after `token` when it is given, else after the key `after`, else from the start."""
        ...

    def head(self, key: bytes) -> Entry | None:
        """The file as it is now; None only when the provider says that it does not exist."""
        ...

    def open(self, key: bytes, *, if_match: Entry | None = None) -> AbstractContextManager[BinaryIO]:
        """Stream a file.

        Raises:
            FileNotFoundError: it is gone.
            Changed: it is not the revision `if_match` any more.
        """
        ...

    def relative(self, key: bytes) -> str:
        """The key below the source path, as text for filters and metadata (undecodable bytes as surrogate escapes)."""
        ...

    def check(self) -> None:
        """Prove that the source can be listed and read, or raise what is wrong and how to mend it."""
        ...
