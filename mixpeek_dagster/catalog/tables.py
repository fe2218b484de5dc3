"""Every table. Times are ISO 8601 text in UTC (they sort as text), keys of foreign files are bytes, open shapes are JSON."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from mixpeek_dagster.catalog.column_types import Bytewise, Json, Words

metadata = MetaData()


def _id(name: str, *, primary: bool = False, nullable: bool = False) -> Column[str]:
    return Column(name, Bytewise, primary_key=primary, nullable=nullable)


def _times() -> tuple[Column[str], Column[str]]:
    return Column("created_at", Bytewise, nullable=False), Column("updated_at", Bytewise, nullable=False)


def _in(name: str, parent: str) -> Column[str]:
    return Column(name, Bytewise, ForeignKey(parent, ondelete="CASCADE"), nullable=False)


namespaces = Table(
    "namespaces",
    metadata,
    _id("namespace_id", primary=True),
    Column("namespace_name", Bytewise, nullable=False, unique=True),
    Column("body", Json, nullable=False),
    *_times(),
)

buckets = Table(
    "buckets",
    metadata,
    _id("bucket_id", primary=True),
    _in("namespace_id", "namespaces.namespace_id"),
    Column("bucket_name", Bytewise, nullable=False),
    Column("body", Json, nullable=False),
    Column("object_count", BigInteger, nullable=False, default=0),
    Column("total_size_bytes", BigInteger, nullable=False, default=0),
    *_times(),
    UniqueConstraint("namespace_id", "bucket_name"),
)

connections = Table(
    "connections",
    metadata,
    _id("connection_id", primary=True),
    Column("name", Bytewise, nullable=False, unique=True),
    Column("provider", Bytewise, nullable=False),
    Column("body", Json, nullable=False),
    Column("secrets", Text),
    Column("status", Bytewise, nullable=False),
    *_times(),
    Column("description", Text),
    Column("metadata", Json),
    Column("write_enabled", Boolean, nullable=False, server_default=text("false")),
    Column("consecutive_failures", Integer, nullable=False, server_default=text("0")),
    Column("last_error", Words),
    Column("last_used_at", Bytewise),
)

syncs = Table(
    "syncs",
    metadata,
    _id("sync_id", primary=True),
    _in("namespace_id", "namespaces.namespace_id"),
    _in("bucket_id", "buckets.bucket_id"),
    Column("connection_id", Bytewise, ForeignKey("connections.connection_id"), nullable=False),
    Column("provider", Bytewise, nullable=False),
    Column("spec", Json, nullable=False),
    Column("status", Bytewise, nullable=False),
    Column("cursor", Json, nullable=False),
    Column("next_pass_at", Bytewise),
    Column("triggered_at", Bytewise),
    Column("pending_full", Boolean, nullable=False, default=False),
    Column("locked_by", Bytewise),
    Column("lock_expires_at", Bytewise),
    Column("passes", Integer, nullable=False, default=0),
    Column("consecutive_failures", Integer, nullable=False, default=0),
    Column("last_pass_at", Bytewise),
    Column("last_counters", Json),
    Column("last_error", Words),
    *_times(),
    Column("confirmed_deletes", Integer, nullable=False, server_default=text("0")),
    Index("syncs_by_bucket", "bucket_id"),
)

sync_jobs = Table(
    "sync_jobs",
    metadata,
    _id("sync_job_id", primary=True),
    _in("sync_id", "syncs.sync_id"),
    Column("status", Bytewise, nullable=False),
    Column("trigger", Bytewise, nullable=False),
    Column("counters", Json, nullable=False),
    Column("error", Words),
    Column("started_at", Bytewise),
    Column("completed_at", Bytewise),
    Column("updated_at", Bytewise, nullable=False),
    Index("sync_jobs_by_sync", "sync_id", "started_at"),
)

IS_DOOMED = "state IN (1, 4)"
"""Of `source_keys`: said in these words, it is found in the index."""

source_keys = Table(
    "source_keys",
    metadata,
    Column("sync_id", Bytewise, primary_key=True),
    Column("key", LargeBinary, primary_key=True),
    Column("etag", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("version", Text, nullable=False),
    Column("modified_at", Float, nullable=False),
    Column("state", Integer, nullable=False),
    Column("seen", Integer, nullable=False),
    Column("object_id", Bytewise),
    Column("error", Words),
    Column("retries", Integer, nullable=False, server_default=text("0")),
    Index("doomed_source_keys", "sync_id", "key", sqlite_where=text(IS_DOOMED), postgresql_where=text(IS_DOOMED)),
    Index(
        "faulty_source_keys",
        "sync_id",
        "state",
        sqlite_where=text("error IS NOT NULL"),
        postgresql_where=text("error IS NOT NULL"),
    ),
    sqlite_with_rowid=False,
)

listed_pages = Table(
    "listed_pages",
    metadata,
    Column("sync_id", Bytewise, primary_key=True),
    Column("after_key", LargeBinary, primary_key=True),
    Column("last_key", LargeBinary, nullable=False),
    Column("is_last", Boolean, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("config_hash", Bytewise, nullable=False),
    Column("listed", Integer, nullable=False),
    Column("skipped", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

objects = Table(
    "objects",
    metadata,
    _id("object_id", primary=True),
    Column("namespace_id", Bytewise, nullable=False),
    _in("bucket_id", "buckets.bucket_id"),
    Column("key_prefix", Text),
    Column("blobs", Json, nullable=False),
    Column("fields", Json, nullable=False),
    Column("unique_value", Bytewise),
    Column("sync_id", Bytewise),
    Column("revision", Integer, nullable=False, default=1),
    Column("status", Bytewise, nullable=False),
    Column("error", Words),
    Column("size_bytes", BigInteger, nullable=False, default=0),
    *_times(),
    Column("tries", Integer, nullable=False, server_default="0"),
    Index("objects_in_bucket", "bucket_id", "created_at", "object_id"),
    Index(
        "failed_objects_of_sync",
        "sync_id",
        "object_id",
        sqlite_where=text("status = 'FAILED' AND sync_id IS NOT NULL"),
        postgresql_where=text("status = 'FAILED' AND sync_id IS NOT NULL"),
    ),
    Index(
        "objects_by_unique_key",
        "bucket_id",
        "unique_value",
        unique=True,
        sqlite_where=text("unique_value IS NOT NULL"),
        postgresql_where=text("unique_value IS NOT NULL"),
    ),
)

collections = Table(
    "collections",
    metadata,
    _id("collection_id", primary=True),
    _in("namespace_id", "namespaces.namespace_id"),
    Column("collection_name", Bytewise, nullable=False),
    Column("body", Json, nullable=False),
    Column("document_count", BigInteger, nullable=False, default=0),
    Column("last_seq", BigInteger, nullable=False, default=0),
    Column("removals", BigInteger, nullable=False, default=0),
    *_times(),
    UniqueConstraint("namespace_id", "collection_name"),
)

batches = Table(
    "batches",
    metadata,
    _id("batch_id", primary=True),
    _in("namespace_id", "namespaces.namespace_id"),
    Column("bucket_id", Bytewise),
    Column("sync_id", Bytewise),
    Column("type", Bytewise, nullable=False),
    Column("status", Bytewise, nullable=False),
    Column("dedup_strategy", Bytewise, nullable=False),
    Column("batch_name", Text),
    Column("metadata", Json),
    Column("collection_ids", Json),
    Column("dag_tiers", Json),
    Column("item_count", Integer, nullable=False, default=0),
    Column("part_size", Integer, nullable=False, default=0),
    Column("documents_written", BigInteger, nullable=False, default=0),
    Column("failed_count", Integer, nullable=False, default=0),
    Column("error", Words),
    Column("task_id", Bytewise),
    Column("webhook_url", Text),
    *_times(),
    Column("submitted_at", Bytewise),
    Column("started_at", Bytewise),
    Column("completed_at", Bytewise),
    Column("reembed", Boolean, nullable=False, server_default=text("false")),
    Index("batches_by_status", "status", "submitted_at"),
    Index("batches_in_bucket", "bucket_id", "created_at"),
    Index("batches_by_task", "task_id"),
    Index("batches_of_sync", "sync_id", "status"),
)

batch_parts = Table(
    "batch_parts",
    metadata,
    Column("batch_id", Bytewise, ForeignKey("batches.batch_id", ondelete="CASCADE"), primary_key=True),
    Column("part", Integer, primary_key=True),
    Column("partition_key", Bytewise, nullable=False, unique=True),
    Column("status", Bytewise, nullable=False),
    Column("attempt", Integer, nullable=False, default=0),
    Column("stalls", Integer, nullable=False, default=0),
    Column("run_id", Bytewise),
    Column("run_key", Bytewise),
    Column("claimed_at", Bytewise),
    Column("heartbeat_at", Bytewise),
    Column("error", Words),
    Index("batch_parts_by_status", "status", "claimed_at"),
    Index(
        "batch_parts_to_stop",
        "run_key",
        sqlite_where=text("status = 'canceled' AND run_key IS NOT NULL"),
        postgresql_where=text("status = 'canceled' AND run_key IS NOT NULL"),
    ),
)

batch_items = Table(
    "batch_items",
    metadata,
    Column("batch_id", Bytewise, ForeignKey("batches.batch_id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("item_id", Bytewise, nullable=False),
    Index("batch_items_by_item", "item_id"),
    sqlite_with_rowid=False,
)

# One collection's progress through one part: what a resumed run continues from, and what a tier task shows.
part_steps = Table(
    "part_steps",
    metadata,
    Column("batch_id", Bytewise, ForeignKey("batches.batch_id", ondelete="CASCADE"), primary_key=True),
    Column("part", Integer, primary_key=True),
    Column("collection_id", Bytewise, primary_key=True),
    Column("tier", Integer, nullable=False),
    Column("status", Bytewise, nullable=False),
    Column("after", Bytewise, nullable=False, default=""),
    Column("inputs", Integer, nullable=False, default=0),
    Column("documents", Integer, nullable=False, default=0),
    Column("failed", Integer, nullable=False, default=0),
    Column("inferred", Integer, nullable=False, default=0),
    Column("reused", Integer, nullable=False, default=0),
    Column("skipped", Integer, nullable=False, default=0),
    Column("seconds", Float, nullable=False, default=0.0),
    Column("started_at", Bytewise),
    Column("completed_at", Bytewise),
)

batch_failures = Table(
    "batch_failures",
    metadata,
    Column("batch_id", Bytewise, ForeignKey("batches.batch_id", ondelete="CASCADE"), primary_key=True),
    Column("collection_id", Bytewise, primary_key=True),
    Column("item_id", Bytewise, primary_key=True),
    Column("object_id", Bytewise),
    Column("part", Integer, nullable=False),
    Column("error_type", Bytewise, nullable=False),
    Column("error", Words, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("created_at", Bytewise, nullable=False),
)

features = Table(
    "features",
    metadata,
    Column("memo_key", Bytewise, primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("fields", Json, nullable=False),
    Column("created_at", Bytewise, nullable=False),
)

vectors = Table(
    "vectors",
    metadata,
    Column("memo_key", Bytewise, primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("output", Bytewise, primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

documents = Table(
    "documents",
    metadata,
    _id("document_id", primary=True),
    Column("namespace_id", Bytewise, nullable=False),
    _in("collection_id", "collections.collection_id"),
    Column("root_bucket_id", Bytewise),
    Column("root_object_id", Bytewise),
    Column("source_document_id", Bytewise),
    Column("source_collection_id", Bytewise),
    Column("partition_key", Bytewise),
    Column("run_id", Bytewise),
    Column("identity", Bytewise, nullable=False),
    Column("position", Integer, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("memo_key", Bytewise, nullable=False),
    Column("content_hash", Bytewise, nullable=False),
    Column("state", Bytewise, nullable=False),
    Column("payload", Json, nullable=False),
    Column("seq", BigInteger, nullable=False),
    *_times(),
    Index("documents_by_time", "collection_id", "created_at", "document_id"),
    Index("documents_in_namespace", "namespace_id", "created_at", "document_id"),
    Index("documents_by_seq", "collection_id", "seq"),
    Index("documents_by_object", "root_object_id", "collection_id"),
    Index("documents_by_source", "source_document_id"),
    Index("documents_by_identity", "collection_id", "identity", "position"),
    Index("documents_by_batch", "partition_key", "collection_id", "document_id"),
    Index("documents_by_memo", "memo_key"),
    Index(
        "documents_not_indexed",
        "collection_id",
        "updated_at",
        sqlite_where=text("state <> 'indexed'"),
        postgresql_where=text("state <> 'indexed'"),
    ),
)

events = Table(
    "events",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("event_id", Bytewise, nullable=False, unique=True),
    Column("namespace_id", Bytewise),
    Column("event_type", Bytewise, nullable=False),
    Column("resource_type", Bytewise, nullable=False),
    Column("resource_id", Bytewise, nullable=False),
    Column("payload", Json, nullable=False),
    Column("created_at", Bytewise, nullable=False),
    Column("delivered_at", Bytewise),
    # The writing transaction's number on Postgres, where `seq` is given before the commit; always 0 on SQLite.
    Column("tx", BigInteger, nullable=False, server_default=text("0")),
    Index("events_in_namespace", "namespace_id", "tx", "seq"),
    Index("events_to_deliver", "seq", sqlite_where=text("delivered_at IS NULL"), postgresql_where=text("delivered_at IS NULL")),
    sqlite_autoincrement=True,
)
