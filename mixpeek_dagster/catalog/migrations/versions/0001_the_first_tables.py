"""The first tables"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")
JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    op.create_table(
        "connections",
        sa.Column("connection_id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("provider", TEXT, nullable=False),
        sa.Column("body", JSON, nullable=False),
        sa.Column("secrets", sa.Text(), nullable=True),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("updated_at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("connection_id"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "events",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("event_id", TEXT, nullable=False),
        sa.Column("namespace_id", TEXT, nullable=True),
        sa.Column("event_type", TEXT, nullable=False),
        sa.Column("resource_type", TEXT, nullable=False),
        sa.Column("resource_id", TEXT, nullable=False),
        sa.Column("payload", JSON, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("delivered_at", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("event_id"),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.create_index(
            "events_to_deliver",
            ["seq"],
            unique=False,
            sqlite_where=sa.text("delivered_at IS NULL"),
            postgresql_where=sa.text("delivered_at IS NULL"),
        )

    op.create_table(
        "features",
        sa.Column("memo_key", TEXT, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("fields", JSON, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("memo_key", "position"),
    )
    op.create_table(
        "namespaces",
        sa.Column("namespace_id", TEXT, nullable=False),
        sa.Column("namespace_name", TEXT, nullable=False),
        sa.Column("body", JSON, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("updated_at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("namespace_id"),
        sa.UniqueConstraint("namespace_name"),
    )
    op.create_table(
        "source_keys",
        sa.Column("sync_id", TEXT, nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("etag", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("modified_at", sa.Float(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("seen", sa.Integer(), nullable=False),
        sa.Column("object_id", TEXT, nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("sync_id", "key"),
        sqlite_with_rowid=False,
    )
    with op.batch_alter_table("source_keys", schema=None) as batch_op:
        batch_op.create_index(
            "missing_source_keys",
            ["sync_id", "key"],
            unique=False,
            sqlite_where=sa.text("state = 1"),
            postgresql_where=sa.text("state = 1"),
        )

    op.create_table(
        "vectors",
        sa.Column("memo_key", TEXT, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("output", TEXT, nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("memo_key", "position", "output"),
    )
    op.create_table(
        "batches",
        sa.Column("batch_id", TEXT, nullable=False),
        sa.Column("namespace_id", TEXT, nullable=False),
        sa.Column("bucket_id", TEXT, nullable=True),
        sa.Column("sync_id", TEXT, nullable=True),
        sa.Column("type", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("dedup_strategy", TEXT, nullable=False),
        sa.Column("batch_name", sa.Text(), nullable=True),
        sa.Column("metadata", JSON, nullable=True),
        sa.Column("collection_ids", JSON, nullable=True),
        sa.Column("dag_tiers", JSON, nullable=True),
        sa.Column("item_count", sa.Integer(), nullable=False),
        sa.Column("part_size", sa.Integer(), nullable=False),
        sa.Column("documents_written", sa.BigInteger(), nullable=False),
        sa.Column("failed_count", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("task_id", TEXT, nullable=True),
        sa.Column("webhook_url", sa.Text(), nullable=True),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("updated_at", TEXT, nullable=False),
        sa.Column("submitted_at", TEXT, nullable=True),
        sa.Column("started_at", TEXT, nullable=True),
        sa.Column("completed_at", TEXT, nullable=True),
        sa.ForeignKeyConstraint(["namespace_id"], ["namespaces.namespace_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("batch_id"),
    )
    with op.batch_alter_table("batches", schema=None) as batch_op:
        batch_op.create_index("batches_by_status", ["status", "submitted_at"], unique=False)
        batch_op.create_index("batches_by_task", ["task_id"], unique=False)
        batch_op.create_index("batches_in_bucket", ["bucket_id", "created_at"], unique=False)
        batch_op.create_index("batches_of_sync", ["sync_id", "status"], unique=False)

    op.create_table(
        "buckets",
        sa.Column("bucket_id", TEXT, nullable=False),
        sa.Column("namespace_id", TEXT, nullable=False),
        sa.Column("bucket_name", TEXT, nullable=False),
        sa.Column("body", JSON, nullable=False),
        sa.Column("object_count", sa.BigInteger(), nullable=False),
        sa.Column("total_size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("updated_at", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["namespace_id"], ["namespaces.namespace_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("bucket_id"),
        sa.UniqueConstraint("namespace_id", "bucket_name"),
    )
    op.create_table(
        "collections",
        sa.Column("collection_id", TEXT, nullable=False),
        sa.Column("namespace_id", TEXT, nullable=False),
        sa.Column("collection_name", TEXT, nullable=False),
        sa.Column("body", JSON, nullable=False),
        sa.Column("document_count", sa.BigInteger(), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("removals", sa.BigInteger(), nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("updated_at", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["namespace_id"], ["namespaces.namespace_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("collection_id"),
        sa.UniqueConstraint("namespace_id", "collection_name"),
    )
    op.create_table(
        "batch_failures",
        sa.Column("batch_id", TEXT, nullable=False),
        sa.Column("collection_id", TEXT, nullable=False),
        sa.Column("item_id", TEXT, nullable=False),
        sa.Column("object_id", TEXT, nullable=True),
        sa.Column("part", sa.Integer(), nullable=False),
        sa.Column("error_type", TEXT, nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.batch_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("batch_id", "collection_id", "item_id"),
    )
    op.create_table(
        "batch_items",
        sa.Column("batch_id", TEXT, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("item_id", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.batch_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("batch_id", "position"),
        sqlite_with_rowid=False,
    )
    with op.batch_alter_table("batch_items", schema=None) as batch_op:
        batch_op.create_index("batch_items_by_item", ["item_id"], unique=False)

    op.create_table(
        "batch_parts",
        sa.Column("batch_id", TEXT, nullable=False),
        sa.Column("part", sa.Integer(), nullable=False),
        sa.Column("partition_key", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("stalls", sa.Integer(), nullable=False),
        sa.Column("run_id", TEXT, nullable=True),
        sa.Column("run_key", TEXT, nullable=True),
        sa.Column("claimed_at", TEXT, nullable=True),
        sa.Column("heartbeat_at", TEXT, nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.batch_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("batch_id", "part"),
        sa.UniqueConstraint("partition_key"),
    )
    with op.batch_alter_table("batch_parts", schema=None) as batch_op:
        batch_op.create_index("batch_parts_by_status", ["status", "claimed_at"], unique=False)

    op.create_table(
        "documents",
        sa.Column("document_id", TEXT, nullable=False),
        sa.Column("namespace_id", TEXT, nullable=False),
        sa.Column("collection_id", TEXT, nullable=False),
        sa.Column("root_bucket_id", TEXT, nullable=True),
        sa.Column("root_object_id", TEXT, nullable=True),
        sa.Column("source_document_id", TEXT, nullable=True),
        sa.Column("source_collection_id", TEXT, nullable=True),
        sa.Column("partition_key", TEXT, nullable=True),
        sa.Column("run_id", TEXT, nullable=True),
        sa.Column("identity", TEXT, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("memo_key", TEXT, nullable=False),
        sa.Column("content_hash", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("payload", JSON, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("updated_at", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["collection_id"], ["collections.collection_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("document_id"),
    )
    with op.batch_alter_table("documents", schema=None) as batch_op:
        batch_op.create_index("documents_by_batch", ["partition_key", "collection_id", "document_id"], unique=False)
        batch_op.create_index("documents_by_identity", ["collection_id", "identity", "position"], unique=False)
        batch_op.create_index("documents_by_memo", ["memo_key"], unique=False)
        batch_op.create_index("documents_by_object", ["root_object_id", "collection_id"], unique=False)
        batch_op.create_index("documents_by_seq", ["collection_id", "seq"], unique=False)
        batch_op.create_index("documents_by_source", ["source_document_id"], unique=False)
        batch_op.create_index("documents_by_time", ["collection_id", "created_at", "document_id"], unique=False)
        batch_op.create_index(
            "documents_not_indexed",
            ["collection_id", "updated_at"],
            unique=False,
            sqlite_where=sa.text("state <> 'indexed'"),
            postgresql_where=sa.text("state <> 'indexed'"),
        )

    op.create_table(
        "objects",
        sa.Column("object_id", TEXT, nullable=False),
        sa.Column("namespace_id", TEXT, nullable=False),
        sa.Column("bucket_id", TEXT, nullable=False),
        sa.Column("key_prefix", sa.Text(), nullable=True),
        sa.Column("blobs", JSON, nullable=False),
        sa.Column("fields", JSON, nullable=False),
        sa.Column("unique_value", TEXT, nullable=True),
        sa.Column("sync_id", TEXT, nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("updated_at", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["bucket_id"], ["buckets.bucket_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("object_id"),
    )
    with op.batch_alter_table("objects", schema=None) as batch_op:
        batch_op.create_index(
            "objects_by_unique_key",
            ["bucket_id", "unique_value"],
            unique=True,
            sqlite_where=sa.text("unique_value IS NOT NULL"),
            postgresql_where=sa.text("unique_value IS NOT NULL"),
        )
        batch_op.create_index("objects_in_bucket", ["bucket_id", "created_at", "object_id"], unique=False)

    op.create_table(
        "part_steps",
        sa.Column("batch_id", TEXT, nullable=False),
        sa.Column("part", sa.Integer(), nullable=False),
        sa.Column("collection_id", TEXT, nullable=False),
        sa.Column("tier", sa.Integer(), nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("after", TEXT, nullable=False),
        sa.Column("inputs", sa.Integer(), nullable=False),
        sa.Column("documents", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("inferred", sa.Integer(), nullable=False),
        sa.Column("reused", sa.Integer(), nullable=False),
        sa.Column("skipped", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("started_at", TEXT, nullable=True),
        sa.Column("completed_at", TEXT, nullable=True),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.batch_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("batch_id", "part", "collection_id"),
    )
    op.create_table(
        "syncs",
        sa.Column("sync_id", TEXT, nullable=False),
        sa.Column("namespace_id", TEXT, nullable=False),
        sa.Column("bucket_id", TEXT, nullable=False),
        sa.Column("connection_id", TEXT, nullable=False),
        sa.Column("provider", TEXT, nullable=False),
        sa.Column("spec", JSON, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("cursor", JSON, nullable=False),
        sa.Column("next_pass_at", TEXT, nullable=True),
        sa.Column("triggered_at", TEXT, nullable=True),
        sa.Column("pending_full", sa.Boolean(), nullable=False),
        sa.Column("confirm_deletes", sa.Boolean(), nullable=False),
        sa.Column("locked_by", TEXT, nullable=True),
        sa.Column("lock_expires_at", TEXT, nullable=True),
        sa.Column("passes", sa.Integer(), nullable=False),
        sa.Column("consecutive_failures", sa.Integer(), nullable=False),
        sa.Column("last_pass_at", TEXT, nullable=True),
        sa.Column("last_counters", JSON, nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("updated_at", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["bucket_id"], ["buckets.bucket_id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["connection_id"],
            ["connections.connection_id"],
        ),
        sa.ForeignKeyConstraint(["namespace_id"], ["namespaces.namespace_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("sync_id"),
    )
    with op.batch_alter_table("syncs", schema=None) as batch_op:
        batch_op.create_index("syncs_by_bucket", ["bucket_id"], unique=False)

    op.create_table(
        "sync_jobs",
        sa.Column("sync_job_id", TEXT, nullable=False),
        sa.Column("sync_id", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("trigger", TEXT, nullable=False),
        sa.Column("counters", JSON, nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("started_at", TEXT, nullable=True),
        sa.Column("completed_at", TEXT, nullable=True),
        sa.Column("updated_at", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["sync_id"], ["syncs.sync_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("sync_job_id"),
    )
    with op.batch_alter_table("sync_jobs", schema=None) as batch_op:
        batch_op.create_index("sync_jobs_by_sync", ["sync_id", "started_at"], unique=False)
