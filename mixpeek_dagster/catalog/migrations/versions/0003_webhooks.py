"""Webhooks and their deliveries; documents of a whole namespace in the order of time"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"

TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")
JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    op.create_table(
        "webhooks",
        sa.Column("webhook_id", TEXT, primary_key=True),
        sa.Column("webhook_name", TEXT, nullable=False, unique=True),
        sa.Column("body", JSON, nullable=False),
        sa.Column("secrets", sa.Text()),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("health", JSON, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("updated_at", TEXT, nullable=False),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("event_id", TEXT, primary_key=True),
        sa.Column("target", TEXT, primary_key=True),
        sa.Column("webhook_id", TEXT, sa.ForeignKey("webhooks.webhook_id", ondelete="CASCADE")),
        sa.Column("channel", sa.Integer(), nullable=False),
        sa.Column("url", sa.Text()),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("body", JSON, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", TEXT, nullable=False),
        sa.Column("last_error", sa.Text()),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("delivered_at", TEXT),
    )
    pending = sa.text("status = 'pending'")
    op.create_index(
        "webhook_deliveries_due",
        "webhook_deliveries",
        ["next_attempt_at"],
        sqlite_where=pending,
        postgresql_where=pending,
    )
    op.create_index("webhook_deliveries_of_webhook", "webhook_deliveries", ["webhook_id", "created_at"])
    op.create_index("documents_in_namespace", "documents", ["namespace_id", "created_at", "document_id"])
