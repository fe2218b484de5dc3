"""Syncs: how a bucket follows a place where other people's files are."""

import fnmatch
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Any, Literal, Self

from pydantic import AliasChoices, ConfigDict, Field, field_validator, model_validator

from mixpeek_dagster.models.buckets import mime_type_of
from mixpeek_dagster.models.ids import BucketId, ConnectionId, NamespaceId, SyncId, SyncJobId
from mixpeek_dagster.models.mappings import SchemaMapping
from mixpeek_dagster.models.values import Lenient, Value


class SyncMode(StrEnum):
    """CONTINUOUS polls at an interval; INITIAL_ONLY makes one complete pass."""

    CONTINUOUS = "continuous"
    INITIAL_ONLY = "initial_only"


_OTHER_NAMES = {"polling_interval": "polling_interval_seconds", "batch_size": "batch_chunk_size"}
"""What the seed and the SDK call some fields of a sync."""

_NOT_UNDERSTOOD = {
    "ingest_filter": "no retriever decides about files; take file_filters",
    "provider_filters": "a listing is filtered by file_filters alone",
}
"""What would choose files, and why it does not here: passed over, it would take files that nobody asked for."""

_PATTERNS = ("include", "exclude", "include_patterns", "exclude_patterns")
"""Filters that may be said without `file_filters` around them."""

_MODES = {"incremental": "continuous", "scheduled": "continuous", "one_time": "initial_only", "full": "initial_only"}


class SyncStatus(StrEnum):
    """PENDING never ran; SUSPENDED is paused; COMPLETED is an initial_only sync that is done."""

    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


_WILDCARDS = {"**/": r"(?:.*/)?", "**": r".*", "*": r"[^/]*", "?": r"[^/]"}


@lru_cache(maxsize=512)
def _glob(pattern: str) -> re.Pattern[str]:
    """`*` and `?` stay inside a folder, `**` crosses folders, `[ab]` and `[!ab]` are one character.

    A pattern without `/` matches the file name in any folder.
    """
    parts = re.split(r"(\*\*/?|\*|\?|\[!?\]?[^\]/]*\])", pattern.removeprefix("/"))
    meaning = "".join(_WILDCARDS.get(part) or _char_set(part) or re.escape(part) for part in parts)
    return re.compile(("" if "/" in pattern else r"(?:.*/)?") + meaning + r"\Z", re.DOTALL)


def _char_set(part: str) -> str | None:
    if not (part.startswith("[") and part.endswith("]")):
        return None
    chars = re.sub(r"([\\\[&~|^\]])", r"\\\1", part[1:-1].removeprefix("!"))
    return f"(?!/)[{'^' if part[1] == '!' else ''}{chars}]"


class FileFilters(Lenient):
    """Which files of the source are taken. All given conditions must hold; no condition takes every file."""

    model_config = ConfigDict(frozen=True, extra="ignore", ignored_types=(cached_property,))

    include_patterns: Sequence[str] = Field(default=(), validation_alias=AliasChoices("include_patterns", "include"))
    exclude_patterns: Sequence[str] = Field(default=(), validation_alias=AliasChoices("exclude_patterns", "exclude"))
    extensions: Sequence[str] = ()
    min_size_bytes: int | None = Field(default=None, ge=0)
    max_size_bytes: int | None = Field(default=None, ge=0)
    modified_after: datetime | None = None
    modified_before: datetime | None = None
    mime_types: Sequence[str] = ()

    @model_validator(mode="before")
    @classmethod
    def _listings_tell_it(cls, body: Any) -> Any:
        """A condition that is not understood must not be passed over: it would take files that nobody asked for."""
        if isinstance(body, dict) and body.get("metadata_filters"):
            raise ValueError("metadata_filters are not supported: a listing does not tell a file's metadata")
        return body

    @field_validator("include_patterns", "exclude_patterns", "extensions", "mime_types", mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        return () if value is None else value

    @field_validator("include_patterns", "exclude_patterns")
    @classmethod
    def _are_patterns(cls, value: Sequence[str]) -> Sequence[str]:
        for pattern in value:
            try:
                _glob(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a pattern: {error}") from error
        return value

    @field_validator("modified_after", "modified_before")
    @classmethod
    def _utc_unless_said(cls, value: datetime | None) -> datetime | None:
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value

    @cached_property
    def is_empty(self) -> bool:
        return not any(getattr(self, name) not in (None, ()) and getattr(self, name) != [] for name in type(self).model_fields)

    def takes(self, path: str, *, size: int, modified_at: float, content_type: str) -> bool:
        """Whether the file at `path` (below the sync's root) is taken; `modified_at` in unix seconds, 0 when unknown."""
        if self.is_empty:
            return True
        if self.include_patterns and not any(_glob(pattern).match(path) for pattern in self.include_patterns):
            return False
        if any(_glob(pattern).match(path) for pattern in self.exclude_patterns):
            return False
        if self.extensions and not path.lower().endswith(tuple("." + e.lower().lstrip(".") for e in self.extensions)):
            return False
        if self.min_size_bytes is not None and size < self.min_size_bytes:
            return False
        if self.max_size_bytes is not None and size > self.max_size_bytes:
            return False
        if self.modified_after and modified_at and modified_at <= self.modified_after.timestamp():
            return False
        if self.modified_before and modified_at and modified_at >= self.modified_before.timestamp():
            return False
        mime = content_type if content_type and content_type != "application/octet-stream" else mime_type_of(path)
        return not self.mime_types or any(fnmatch.fnmatchcase(mime, wanted) for wanted in self.mime_types)


class ReconcileSettings(Lenient):
    """What a pass may do with objects whose file is gone, changed, or no longer taken by the filters."""

    on_delete: bool = True
    on_update: bool = True
    on_filter_drift: bool = True
    re_extract_on_update: bool = True


class SyncSpec(Lenient):
    """What a user may say about a sync, in the seed's words or the SDK's."""

    source_path: str = ""
    sync_mode: SyncMode = SyncMode.CONTINUOUS
    requested_sync_mode: str | None = None
    polling_interval_seconds: int = Field(default=300, ge=1, le=86400)
    file_filters: FileFilters = FileFilters()
    schema_mapping: SchemaMapping | None = None
    batch_chunk_size: int = Field(default=1000, ge=1, le=1000)
    skip_batch_submission: bool = False
    batch_collection_ids: Sequence[str] | None = None
    skip_duplicates: bool = True
    sync_from: datetime | None = None
    reconcile: ReconcileSettings = ReconcileSettings()
    max_objects_per_run: int = Field(default=100_000, ge=1)
    max_deleted_ratio: float = Field(default=0.2, ge=0, le=1)
    description: str | None = None
    metadata: dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _words_of_both_dialects(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        body = _own_names({key: value for key, value in body.items() if value is not None})
        for name, reason in _NOT_UNDERSTOOD.items():
            if body.get(name):
                raise ValueError(f"{name} is not supported: {reason}")
        patterns = {f"{name.removesuffix('_patterns')}_patterns": body[name] for name in _PATTERNS if name in body}
        filters = body.get("file_filters", {})
        if patterns and isinstance(filters, (Mapping, FileFilters)):
            body["file_filters"] = {**dict(filters), **patterns}
        mode = body.get("sync_mode")
        if isinstance(mode, str) and not isinstance(mode, SyncMode):
            body.setdefault("requested_sync_mode", mode)
            body["sync_mode"] = _MODES.get(mode.lower(), mode.lower())
        return body

    def changed(self, changes: Mapping[str, Any]) -> "SyncSpec":
        """With other values, in the words of either; what is not named stays as it is.

        Raises:
            pydantic.ValidationError: a value does not fit.
        """
        changes, before = _own_names(changes), self.model_dump()
        reconcile = changes.get("reconcile")
        if isinstance(reconcile, Mapping):
            changes["reconcile"] = before["reconcile"] | {key: value for key, value in reconcile.items() if value is not None}
        return type(self).model_validate(before | changes)


def _own_names(body: Mapping[str, Any]) -> dict[str, Any]:
    own = {key: value for key, value in body.items() if key not in _OTHER_NAMES}
    return {name: body[other] for other, name in _OTHER_NAMES.items() if other in body} | own


class ConnectionSpec(Value):
    """How to reach a provider. `credentials` never leave the process: they are encrypted at rest and absent from every answer."""

    provider: str
    config: dict[str, Any] = Field(default_factory=dict)

    def __repr__(self) -> str:
        return f"ConnectionSpec(provider={self.provider!r})"


class Connection(Value):
    """A connection as recorded; `config` holds its secrets only inside the process that opened it."""

    connection_id: ConnectionId
    name: str
    provider: str
    config: dict[str, Any] = Field(repr=False)
    status: str = "ACTIVE"
    description: str | None = None
    metadata: dict[str, Any] | None = None
    write_enabled: bool = False
    consecutive_failures: int = 0
    last_error: str | None = None
    last_used_at: str | None = None
    created_at: str
    updated_at: str


REQUEUED = "requeued"
"""The etag of a registered key that somebody wants to be tried again; no file has it."""


class Phase(StrEnum):
    """Where a pass is: IDLE between passes, SCAN merging a sorted listing, SWEEP marking an unsorted one, DELETE at its end."""

    IDLE = "idle"
    SCAN = "scan"
    SWEEP = "sweep"
    DELETE = "delete"


class Counters(Value):
    """What a pass has seen and done so far. `bytes` counts the listed files that the filters take."""

    listed: int = 0
    new: int = 0
    changed: int = 0
    deleted: int = 0
    unchanged: int = 0
    skipped: int = 0
    failed: int = 0
    held: int = 0
    pages: int = 0
    bytes: int = 0
    seconds: float = 0.0

    def plus(self, **more: float) -> Self:
        return self.model_copy(update={name: getattr(self, name) + value for name, value in more.items()})


class SyncCursor(Value):
    """How far a pass has come; saved in the same transaction as what it registered.

    `config_hash` is the configuration of the last complete pass, `pass_hash` that of the one under way. `idle_pages` counts the pages
    in a row that named no file which this pass had not seen; `landmark` is an earlier token, which never comes again. `full` looks at
    every file again, as if the configuration had changed. A pass of more objects than one run may take goes on in the next run;
    `taken_before` are those that earlier runs took. `new_keys` is how many keys it has registered. `confirmed_deletes` is how many deletes
    somebody allowed; `deletes_believed` says that the guard has passed those of this pass. Of its missing files `refused` may not be
    asked for, the first for the reason `refusal`. `feed_position` is how far the provider's change feed was followed, and `feed_deleted`
    how many objects it, or runs that could not read their files, led to the end of since the last pass.
    """

    phase: Phase = Phase.IDLE
    generation: int = 0
    after: str | None = None
    token: str | None = None
    config_hash: str = ""
    counters: Counters = Counters()
    job_id: SyncJobId | None = None
    pass_hash: str = ""
    idle_pages: int = 0
    landmark: str | None = None
    started_at: str | None = None
    unordered: bool = False
    confirmed_deletes: int = 0
    deletes_believed: bool = False
    refused: int = 0
    refusal: str | None = None
    full: bool = False
    taken_before: int = 0
    new_keys: int = 0
    feed_position: str | None = None
    feed_deleted: int = 0

    @property
    def after_key(self) -> bytes | None:
        return None if self.after is None else bytes.fromhex(self.after)


class Sync(Value):
    """A sync as recorded."""

    sync_id: SyncId
    namespace_id: NamespaceId
    bucket_id: BucketId
    connection_id: ConnectionId
    provider: str
    spec: SyncSpec
    status: SyncStatus
    cursor: SyncCursor
    next_pass_at: str | None
    triggered_at: str | None = None
    pending_full: bool = False
    confirmed_deletes: int = 0
    locked_by: str | None = None
    lock_expires_at: str | None = None
    passes: int = 0
    consecutive_failures: int = 0
    last_pass_at: str | None = None
    last_counters: Counters | None = None
    last_error: str | None = None
    created_at: str
    updated_at: str


Trigger = Literal["scheduled", "manual", "resume"]
