"""API keys, uploads, idempotency keys, tasks, dead letters; what a connection's users see of it"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"

TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")
JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    with op.batch_alter_table("connections") as connections:
        connections.add_column(sa.Column("description", sa.Text()))
        connections.add_column(sa.Column("metadata", JSON))
        connections.add_column(sa.Column("write_enabled", sa.Boolean(), nullable=False, server_default=sa.text("false")))
        connections.add_column(sa.Column("consecutive_failures", sa.Integer(), nullable=False, server_default=sa.text("0")))
        connections.add_column(sa.Column("last_error", sa.Text()))
        connections.add_column(sa.Column("last_used_at", TEXT))
    op.create_table(
        "api_keys",
        sa.Column("key_id", TEXT, primary_key=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("prefix", TEXT, nullable=False),
        sa.Column("key_hash", TEXT, nullable=False, unique=True),
        sa.Column("namespace_id", TEXT, sa.ForeignKey("namespaces.namespace_id", ondelete="CASCADE")),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("revoked_at", TEXT),
    )
    op.create_table(
        "uploads",
        sa.Column("upload_id", TEXT, primary_key=True),
        sa.Column("namespace_id", TEXT, nullable=False),
        sa.Column("bucket_id", TEXT, sa.ForeignKey("buckets.bucket_id", ondelete="CASCADE"), nullable=False),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("body", JSON, nullable=False),
        sa.Column("file_hash", TEXT),
        sa.Column("file_size_bytes", sa.BigInteger()),
        sa.Column("object_id", TEXT),
        sa.Column("expires_at", TEXT, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("updated_at", TEXT, nullable=False),
    )
    op.create_index("uploads_in_bucket", "uploads", ["bucket_id", "created_at", "upload_id"])
    op.create_index("uploads_by_hash", "uploads", ["bucket_id", "file_hash"])
    op.create_table(
        "object_keys",
        sa.Column("bucket_id", TEXT, sa.ForeignKey("buckets.bucket_id", ondelete="CASCADE"), primary_key=True),
        sa.Column("key", TEXT, primary_key=True),
        sa.Column("object_id", TEXT, sa.ForeignKey("objects.object_id", ondelete="CASCADE"), nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
    )
    op.create_index("object_keys_by_object", "object_keys", ["object_id"])
    op.create_table(
        "tasks",
        sa.Column("task_id", TEXT, primary_key=True),
        sa.Column("namespace_id", TEXT),
        sa.Column("task_type", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("inputs", JSON, nullable=False),
        sa.Column("outputs", JSON),
        sa.Column("error", sa.Text()),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("updated_at", TEXT, nullable=False),
        sa.Column("completed_at", TEXT),
    )
    op.create_index("tasks_by_status", "tasks", ["status", "created_at"])
    op.create_index("tasks_in_namespace", "tasks", ["namespace_id", "created_at"])
    op.create_table(
        "dead_letters",
        sa.Column("sync_id", TEXT, sa.ForeignKey("syncs.sync_id", ondelete="CASCADE"), primary_key=True),
        sa.Column("key", sa.LargeBinary(), primary_key=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
    )
