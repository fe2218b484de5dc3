"""Tables of what requests leave behind: keys, uploads, tasks, dead letters, retrievers and more. See `tables` for the conventions."""

from sqlalchemy import BigInteger, Column, ForeignKey, Index, LargeBinary, Table, Text, UniqueConstraint

from mixpeek_dagster.catalog.column_types import Bytewise, Json, Words
from mixpeek_dagster.catalog.tables import _id, _in, _times, metadata

api_keys = Table(
    "api_keys",
    metadata,
    _id("key_id", primary=True),
    Column("name", Text, nullable=False),
    Column("prefix", Bytewise, nullable=False),
    Column("key_hash", Bytewise, nullable=False, unique=True),
    Column("namespace_id", Bytewise, ForeignKey("namespaces.namespace_id", ondelete="CASCADE")),
    Column("created_at", Bytewise, nullable=False),
    Column("revoked_at", Bytewise),
)

uploads = Table(
    "uploads",
    metadata,
    _id("upload_id", primary=True),
    Column("namespace_id", Bytewise, nullable=False),
    _in("bucket_id", "buckets.bucket_id"),
    Column("filename", Text, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("status", Bytewise, nullable=False),
    Column("body", Json, nullable=False),
    Column("file_hash", Bytewise),
    Column("file_size_bytes", BigInteger),
    Column("object_id", Bytewise),
    Column("expires_at", Bytewise, nullable=False),
    *_times(),
    Index("uploads_in_bucket", "bucket_id", "created_at", "upload_id"),
    Index("uploads_by_hash", "bucket_id", "file_hash"),
    Index("uploads_by_end", "status", "expires_at"),
)

# What a client's idempotency key made, and what `skip_duplicates` finds again.
object_keys = Table(
    "object_keys",
    metadata,
    Column("bucket_id", Bytewise, ForeignKey("buckets.bucket_id", ondelete="CASCADE"), primary_key=True),
    Column("key", Bytewise, primary_key=True),
    Column("object_id", Bytewise, ForeignKey("objects.object_id", ondelete="CASCADE"), nullable=False),
    Column("created_at", Bytewise, nullable=False),
    Index("object_keys_by_object", "object_id"),
)

# Work that outlives its request and is no batch: cascading deletes, confirmations and changes of many records.
tasks = Table(
    "tasks",
    metadata,
    _id("task_id", primary=True),
    Column("namespace_id", Bytewise),
    Column("task_type", Bytewise, nullable=False),
    Column("status", Bytewise, nullable=False),
    Column("inputs", Json, nullable=False),
    Column("outputs", Json),
    Column("error", Words),
    *_times(),
    Column("completed_at", Bytewise),
    Index("tasks_by_status", "status", "created_at"),
    Index("tasks_in_namespace", "namespace_id", "created_at"),
)

# Dead letters that somebody gave up on, with the reason.
dead_letters = Table(
    "dead_letters",
    metadata,
    Column("sync_id", Bytewise, ForeignKey("syncs.sync_id", ondelete="CASCADE"), primary_key=True),
    Column("key", LargeBinary, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("created_at", Bytewise, nullable=False),
)

# Deleted syncs whose keys are kept for one that follows the same place again.
left_syncs = Table(
    "left_syncs",
    metadata,
    _id("sync_id", primary=True),
    _in("bucket_id", "buckets.bucket_id"),
    Column("place", Text, nullable=False),
    Column("created_at", Bytewise, nullable=False),
    Index("left_syncs_of_bucket", "bucket_id"),
)

# Objects that are kept, but that nothing is made of.
disabled_objects = Table(
    "disabled_objects",
    metadata,
    Column("object_id", Bytewise, ForeignKey("objects.object_id", ondelete="CASCADE"), primary_key=True),
    Column("lifecycle_state", Bytewise, nullable=False),
    Column("reason", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("created_at", Bytewise, nullable=False),
)

# Stored searches.
retrievers = Table(
    "retrievers",
    metadata,
    _id("retriever_id", primary=True),
    _in("namespace_id", "namespaces.namespace_id"),
    Column("retriever_name", Bytewise, nullable=False),
    Column("body", Json, nullable=False),
    *_times(),
    UniqueConstraint("namespace_id", "retriever_name"),
)
