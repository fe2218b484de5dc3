"""Tables of webhooks: who is told, and what is still to be told to whom."""

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, Table, Text, text

from mixpeek_dagster.catalog.column_types import Bytewise, Json, Words
from mixpeek_dagster.catalog.tables import metadata

webhooks = Table(
    "webhooks",
    metadata,
    Column("webhook_id", Bytewise, primary_key=True),
    Column("webhook_name", Bytewise, nullable=False, unique=True),
    Column("body", Json, nullable=False),
    Column("secrets", Text),
    Column("is_active", Boolean, nullable=False),
    Column("health", Json, nullable=False),
    Column("created_at", Bytewise, nullable=False),
    Column("updated_at", Bytewise, nullable=False),
)

# One event to one place: a channel of a webhook, or the URL that a batch was submitted with.
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("event_id", Bytewise, primary_key=True),
    Column("target", Bytewise, primary_key=True),
    Column("webhook_id", Bytewise, ForeignKey("webhooks.webhook_id", ondelete="CASCADE")),
    Column("channel", Integer, nullable=False),
    Column("url", Text),
    Column("seq", Integer, nullable=False),
    Column("body", Json, nullable=False),
    Column("status", Bytewise, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_attempt_at", Bytewise, nullable=False),
    Column("last_error", Words),
    Column("created_at", Bytewise, nullable=False),
    Column("delivered_at", Bytewise),
    Index(
        "webhook_deliveries_due",
        "next_attempt_at",
        sqlite_where=text("status = 'pending'"),
        postgresql_where=text("status = 'pending'"),
    ),
    Index("webhook_deliveries_of_webhook", "webhook_id", "created_at"),
)
