"""Records to fill a catalog with, made without a pipeline."""

import itertools
from typing import Any

import numpy as np

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.models.buckets import Bucket, BucketSchema
from mixpeek_dagster.models.collections import Collection
from mixpeek_dagster.models.documents import Document, DocumentState, Feature
from mixpeek_dagster.models.ids import ConnectionId, SyncId
from mixpeek_dagster.models.namespaces import Namespace
from mixpeek_dagster.models.syncs import Connection, Sync, SyncCursor, SyncSpec, SyncStatus
from tests.pipeline.worlds import NOW

_COUNT = itertools.count()


def collection(records: Records, namespace: Namespace, bucket: Bucket, *, name: str | None = None) -> Collection:
    made = Collection.model_validate(
        {
            "collection_id": f"col_{next(_COUNT)}",
            "collection_name": name or f"collection {next(_COUNT)}",
            "namespace_id": namespace.namespace_id,
            "source": {"type": "bucket", "bucket_ids": [bucket.bucket_id]},
            "feature_extractor": {"feature_extractor_name": "stub"},
            "input_schema": BucketSchema(properties={}),
            "output_schema": BucketSchema(properties={}),
            "fingerprint": "f",
            "created_at": NOW,
            "updated_at": NOW,
        }
    )
    records.collections.add(made)
    return made


def document(made: Collection, document_id: str, **more: Any) -> Document:
    values: dict[str, Any] = {
        "document_id": document_id,
        "namespace_id": made.namespace_id,
        "collection_id": made.collection_id,
        "identity": document_id,
        "position": 0,
        "revision": 1,
        "memo_key": "memo",
        "content_hash": "hash",
        "state": DocumentState.INDEXED,
        "payload": {"a": 1},
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Document(**values | more)


def feature(memo_key: str, position: int = 0, *, size: int = 4, value: float = 1.0) -> Feature:
    return Feature(memo_key, position, {"n": position}, {"out": np.full(size, value, "<f4").tobytes()})


def add_sync(records: Records, bucket: Bucket) -> Sync:
    number = next(_COUNT)
    connection = Connection(
        connection_id=ConnectionId(f"conn_{number}"),
        name=f"connection {number}",
        provider="local",
        config={},
        created_at=NOW,
        updated_at=NOW,
    )
    records.syncs.add_connection(connection, body={}, secrets=None)
    sync = Sync(
        sync_id=SyncId(f"sync_{number}"),
        namespace_id=bucket.namespace_id,
        bucket_id=bucket.bucket_id,
        connection_id=connection.connection_id,
        provider="local",
        spec=SyncSpec(),
        status=SyncStatus.PENDING,
        cursor=SyncCursor(),
        next_pass_at=NOW,
        created_at=NOW,
        updated_at=NOW,
    )
    records.syncs.add(sync)
    return sync
