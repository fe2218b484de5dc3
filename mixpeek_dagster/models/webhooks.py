"""Webhooks: who wants to be told of which events, and how."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from mixpeek_dagster.models.values import Lenient, Value

REDACTED = "redacted"
"""What a secret reads as; sending it back keeps the secret."""

_CHANGES = ("created", "updated", "deleted")
EVENT_TYPES = frozenset(
    {
        *("batch.completed", "batch.failed", "batch.canceled"),
        *("objects.created.batch", "documents.updated.batch", "documents.deleted.batch"),
        *("collection.documents.written", "collection.documents.batch_completed"),
        *(
            f"{noun}.{change}"
            for noun in ("object", "document", "collection", "cluster", "trigger", "taxonomy", "alert")
            for change in _CHANGES
        ),
        *(f"annotation.{change}" for change in _CHANGES),
        *(f"cluster.execution.{how}" for how in ("started", "completed", "failed")),
        *(f"{noun}.execution.{how}" for noun in ("trigger", "alert") for how in ("completed", "failed")),
        *("trigger.paused", "trigger.resumed", "trigger.fired", "alert.triggered"),
        *("resource.executed", "resource.execution_failed", "manifest.apply.resource_state"),
    }
)
"""What may be subscribed to, beside `*`. Some of them a self-hosted warehouse never has."""


Address = Annotated[str, Field(max_length=320, pattern=r"^[!-~]+@[A-Za-z0-9.-]+$")]


class ChannelConfig(Lenient):
    """Where to send: `url` for a webhook, `webhook_url` for Slack, `to_addresses` for e-mail."""

    url: str | None = Field(default=None, min_length=1, max_length=2048)
    headers: dict[str, str] | None = Field(default=None, max_length=50)
    payload_template: dict[str, Any] | None = None
    timeout: float = Field(default=10.0, gt=0, le=60)
    signing_secret: str | None = Field(default=None, max_length=1000)
    webhook_url: str | None = Field(default=None, min_length=1, max_length=2048)
    channel: str | None = Field(default=None, max_length=200)
    username: str | None = Field(default=None, max_length=200)
    icon_emoji: str | None = Field(default=None, max_length=200)
    icon_url: str | None = Field(default=None, max_length=2048)
    to_addresses: Sequence[Address] | None = Field(default=None, min_length=1, max_length=50)
    cc_addresses: Sequence[Address] | None = Field(default=None, max_length=50)
    bcc_addresses: Sequence[Address] | None = Field(default=None, max_length=50)
    subject_template: str | None = Field(default=None, max_length=500)
    body_template: str | None = Field(default=None, max_length=100_000)
    content_type: Literal["plain_text", "html", "markdown", "json"] | None = None

    @field_validator("headers")
    @classmethod
    def _are_headers(cls, headers: dict[str, str] | None) -> dict[str, str] | None:
        for name, value in (headers or {}).items():
            if not name or not all("!" <= c <= "~" and c != ":" for c in name) or any(c in value for c in "\r\n\0"):
                raise ValueError(f"{name!r} is no header")
            if not value.isascii() or len(name) + len(value) > 4096:
                raise ValueError(f"the value of header {name!r} is no plain text of at most 4 KB")
        return headers


class Channel(Lenient):
    """One way to tell."""

    channel: Literal["webhook", "slack", "email"]
    configs: ChannelConfig

    @model_validator(mode="after")
    def _says_where(self) -> Self:
        if self.target is None:
            raise ValueError(f"a channel of kind {self.channel!r} needs {_WHERE[self.channel]}")
        return self

    @property
    def target(self) -> str | None:
        """The URL, or the addresses."""
        said = getattr(self.configs, _WHERE[self.channel])
        return said if isinstance(said, str | None) else ", ".join(said)


_WHERE = {"webhook": "url", "slack": "webhook_url", "email": "to_addresses"}


class WebhookBody(Lenient):
    """Body of a new or changed webhook."""

    webhook_name: str = Field(min_length=1, max_length=200)
    event_types: Sequence[Annotated[str, Field(max_length=100)]] = Field(min_length=1, max_length=100)
    resource_types: Sequence[Annotated[str, Field(max_length=100)]] | None = Field(default=None, max_length=100)
    channels: Sequence[Channel] = Field(min_length=1, max_length=10)
    is_active: bool = True

    @field_validator("event_types")
    @classmethod
    def _are_known(cls, types: Sequence[str]) -> Sequence[str]:
        unknown = sorted(set(types) - EVENT_TYPES - {"*"})
        if unknown:
            raise ValueError(f"unknown event type {unknown[0]!r}; known are *, {', '.join(sorted(EVENT_TYPES))}")
        return types


class Health(Value):
    """How deliveries of a webhook go."""

    consecutive_failures: int = 0
    first_failure_at: str | None = None
    last_failure_at: str | None = None
    last_failure_cause: str | None = None
    last_success_at: str | None = None
    paused_at: str | None = None
    paused_reason: str | None = None


class Webhook(WebhookBody):
    """A webhook as recorded: its secrets read `redacted`, and are kept encrypted beside it."""

    webhook_id: str
    health: Health = Health()
    created_at: str
    updated_at: str

    def wants(self, event_type: str, resource_type: str) -> bool:
        """Whether it is told of such an event."""
        of_type = "*" in self.event_types or event_type in self.event_types
        return self.is_active and of_type and (not self.resource_types or resource_type in self.resource_types)
