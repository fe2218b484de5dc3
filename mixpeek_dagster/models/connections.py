"""Connections as requests write them. As recorded they are `models.syncs.Connection`."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from mixpeek_dagster.models.values import Lenient


class ConnectionCreate(Lenient):
    """Body of `POST /v1/organizations/connections`."""

    name: str = Field(min_length=1, max_length=100)
    provider_type: str = Field(min_length=1, max_length=100)
    provider_config: dict[str, Any]
    description: str | None = Field(default=None, max_length=500)
    metadata: dict[str, Any] | None = None
    write_enabled: bool = False
    test_before_save: bool = True


class ConnectionPatch(Lenient):
    """What may change about a connection; a `provider_config` replaces the whole of it, unless its credentials are left out."""

    name: str | None = Field(default=None, min_length=1, max_length=100)
    provider_config: dict[str, Any] | None = None
    description: str | None = Field(default=None, max_length=500)
    metadata: dict[str, Any] | None = None
    write_enabled: bool | None = None
    is_active: bool | None = None
    status: Literal["ACTIVE", "SUSPENDED"] | None = None
    test_before_save: bool = False

    @property
    def wanted_status(self) -> str | None:
        """ACTIVE or SUSPENDED, however it was said."""
        return self.status or {True: "ACTIVE", False: "SUSPENDED", None: None}[self.is_active]


class SyncCreate(Lenient):
    """Body of `POST /v1/buckets/{b}/syncs`: `provider` with `connection`, or a `connection_id`; the rest in `sync_config` or beside it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    provider: str | None = Field(default=None, min_length=1, max_length=100)
    connection: dict[str, Any] | None = None
    sync_config: dict[str, Any] | None = None
    connection_id: str | None = Field(default=None, min_length=1, max_length=100)
    source_path: str | None = Field(default=None, max_length=4096)
    description: str | None = Field(default=None, max_length=2000)

    @model_validator(mode="after")
    def _is_one_form(self) -> "SyncCreate":
        if (self.provider is None) == (self.connection_id is None):
            raise ValueError("a sync needs either `provider` with `connection`, or a `connection_id`")
        return self

    @property
    def wire(self) -> dict[str, Any]:
        """As `pipeline.creation.create_sync` takes it."""
        return self.model_dump(exclude_none=True)


FIXED = ("connection_id", "connection", "provider", "source_path", "sync_mode")
"""What a sync keeps for its life: another place is another sync."""


class SyncPatch(Lenient):
    """Body of PATCH on a sync. `metadata` and `schema_mapping` are replaced, not merged."""

    model_config = ConfigDict(frozen=True, extra="allow")

    status: str | None = Field(default=None, max_length=50)
    is_active: bool | None = None
    sync_config: dict[str, Any] | None = None

    @property
    def changes(self) -> dict[str, Any]:
        """What is to change of the sync's specification."""
        return {**(self.sync_config or {}), **(self.model_extra or {})}


class DeadLetterQuestion(Lenient):
    """Which dead letters."""

    only_max_retries: bool = False
    error_types: Sequence[str] | None = Field(default=None, max_length=100)
