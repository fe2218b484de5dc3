"""A whole small warehouse to try things on: a source in memory, a bucket, collections, and a way to run what is queued."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mixpeek_dagster.catalog import Catalog, Records
from mixpeek_dagster.catalog.syncs import KeyState
from mixpeek_dagster.catalog.tables import metadata
from mixpeek_dagster.models.batches import Batch, BatchStatus
from mixpeek_dagster.models.buckets import Bucket, BucketCreate
from mixpeek_dagster.models.collections import Collection, CollectionCreate
from mixpeek_dagster.models.documents import Document
from mixpeek_dagster.models.ids import BucketId, CollectionId
from mixpeek_dagster.models.namespaces import Namespace, NamespaceCreate
from mixpeek_dagster.models.objects import Blob, ObjectStatus, StoredObject
from mixpeek_dagster.models.syncs import Sync
from mixpeek_dagster.pipeline.batches import claim, create_batch, submit
from mixpeek_dagster.pipeline.creation import create_bucket, create_collection, create_namespace, create_sync
from mixpeek_dagster.pipeline.extraction import StepReport, run_step
from mixpeek_dagster.pipeline.syncs import Progress, advance
from mixpeek_dagster.pipeline.verification import verify
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.settings import Settings
from mixpeek_dagster.testing import FakeIndex, FakeSource, FakeWorld

FAKE = "mixpeek_dagster.testing:FakeSource"
STUB = "mixpeek_dagster.testing:StubExtractor"
NOW = "2026-11-22T00:00:00.000000Z"
_COUNT = itertools.count()


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 22, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def windows_of(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Let every window of a step take `size` items."""
    monkeypatch.setattr("mixpeek_dagster.pipeline.reading.SMALLEST", size // 2)
    monkeypatch.setattr("mixpeek_dagster.pipeline.extraction.LARGEST", size)


def emptied(url: str) -> str:
    """The same URL; whatever a catalog there held is gone."""
    opened = Catalog(url)
    with opened.transaction() as records:
        tables = ", ".join(table.name for table in metadata.sorted_tables)
        records.connection.exec_driver_sql(f"TRUNCATE {tables} RESTART IDENTITY CASCADE")
        declared = records.connection.exec_driver_sql("SELECT indexname FROM pg_indexes WHERE starts_with(indexname, 'payload_')")
        for index in declared.scalars().all():
            records.connection.exec_driver_sql(f"DROP INDEX {index}")
    opened.close()
    return url


def make_namespace(records: Records, name: str = "library") -> Namespace:
    return create_namespace(records, NamespaceCreate(namespace_name=name), now=NOW)


def make_bucket(records: Records, namespace: Namespace, *, schema: Mapping[str, Any] | None = None, **more: Any) -> Bucket:
    properties = schema if schema is not None else {"content": {"type": "text"}, "path": {"type": "string"}}
    body = {"bucket_name": f"bucket-{next(_COUNT)}", "bucket_schema": {"properties": properties}, **more}
    return create_bucket(records, BucketCreate.model_validate(body), namespace_id=namespace.namespace_id, now=NOW)


def stored_object(bucket: Bucket, object_id: str, text: str = "", **more: Any) -> StoredObject:
    """An object with inline text."""
    values = {
        "object_id": object_id,
        "namespace_id": bucket.namespace_id,
        "bucket_id": bucket.bucket_id,
        "blobs": [Blob(property="content", type="text", text=text or object_id)],  # type: ignore[arg-type]
        "fields": {"path": f"{object_id}.txt"},
        "size_bytes": len(text or object_id),
        "created_at": NOW,
        "updated_at": NOW,
    }
    return StoredObject(**values | more)


class Library:
    """See the module. The first collection, `passages`, reads the bucket; `above` adds one that reads a collection."""

    def __init__(self, warehouse: Warehouse, clock: Clock, *, fail_on: str | None = None, **sync: Any) -> None:
        self.warehouse = warehouse
        self.clock = clock
        self.world = FakeSource.worlds.setdefault("default", FakeWorld())
        with warehouse.catalog.transaction() as records:
            self.namespace = make_namespace(records)
            self.bucket = make_bucket(records, self.namespace)
            self.sync = self._sync(records, sync)
        self.passages = self.collection("passages", {"type": "bucket", "bucket_ids": [self.bucket.bucket_id]}, fail_on=fail_on)

    def _sync(self, records: Records, config: Mapping[str, Any]) -> Sync:
        body = {"provider": FAKE, "connection": {"world": "default"}, "sync_config": {"source_path": "/", **config}}
        return create_sync(records, body, warehouse=self.warehouse, bucket=self.bucket, now=NOW)

    def configure(self, **spec: Any) -> None:
        """Change the sync as a user would."""
        with self.warehouse.catalog.transaction() as records:
            sync = records.syncs.get(self.sync.sync_id)
            body = sync.spec.model_dump(mode="json") | spec
            records.syncs.set(sync.sync_id, now=NOW, spec=type(sync.spec).model_validate(body).model_dump(mode="json"))

    def set_sync(self, **values: Any) -> None:
        with self.warehouse.catalog.transaction() as records:
            records.syncs.set(self.sync.sync_id, now=NOW, **values)

    def collection(
        self, name: str, source: Mapping[str, Any], *, fail_on: str | None = None, mapping: str = "content", **config: Any
    ) -> Collection:
        extractor = {
            "feature_extractor_name": STUB,
            "input_mappings": {"text": mapping},
            "parameters": {"fail_on": fail_on} if fail_on else {},
            **config,
        }
        body = CollectionCreate.model_validate({"collection_name": name, "source": source, "feature_extractor": extractor})
        with self.warehouse.catalog.transaction() as records:
            return create_collection(
                records,
                body,
                warehouse=self.warehouse,
                namespace_id=self.namespace.namespace_id,
                now=self.warehouse.now(),
            )

    def above(self, name: str, *below: Collection, fail_on: str | None = None) -> Collection:
        source = {"type": "collection", "collection_ids": [one.collection_id for one in below]}
        return self.collection(name, source, fail_on=fail_on)

    def with_settings(self, **values: Any) -> None:
        self.warehouse.settings = replace(self.warehouse.settings, **values)
        if "index" in values:
            self.warehouse.__dict__.pop("index", None)

    # Syncs

    def advance(self, *, budget_s: float = 20.0, force: bool = True) -> Progress | None:
        self.clock.move(1)
        return advance(self.warehouse, self.sync.sync_id, budget_s=budget_s, force=force)

    def poll(self) -> Progress:
        """One whole pass."""
        for _ in range(10_000):
            progress = self.advance()
            assert progress is not None, "paused or locked"
            if progress.finished or progress.error:
                return progress
        raise AssertionError("the pass does not end")

    def now(self) -> Sync:
        with self.warehouse.catalog.reading() as records:
            return records.syncs.get(self.sync.sync_id)

    def keys(self) -> dict[str, KeyState]:
        with self.warehouse.catalog.reading() as records:
            rows = records.syncs.keys_between(self.sync.sync_id, None, None)
        return {row[0].decode("utf-8", "surrogateescape"): KeyState(row[4]) for row in rows}

    def objects(self) -> dict[str, StoredObject]:
        """Objects of the bucket by path."""
        with self.warehouse.catalog.reading() as records:
            found = records.objects.named(records.objects.ids_in_bucket(self.bucket.bucket_id)).values()
        paths = [str(one.fields["path"]) for one in found]
        assert len(paths) == len(set(paths)), f"two objects of one file: {sorted(paths)}"
        return dict(zip(paths, found))

    def batches(self) -> list[Batch]:
        """Oldest first."""
        with self.warehouse.catalog.reading() as records:
            return records.batches.page(limit=10_000)[0][::-1]

    # Batches

    def add_objects(self, texts: Mapping[str, str]) -> list[str]:
        """Objects that were pushed, not synced."""
        with self.warehouse.catalog.transaction() as records:
            made = [stored_object(self.bucket, name, text) for name, text in texts.items()]
            records.objects.add(made)
            size = sum(one.size_bytes for one in made)
            records.buckets.count(self.bucket.bucket_id, objects=len(made), size_bytes=size)
        return list(texts)

    def submit(
        self, object_ids: Sequence[str], *, dedup: str = "skip", collection_ids: Sequence[CollectionId] | None = None
    ) -> Batch:
        self.clock.move(1)
        now = self.warehouse.now()
        with self.warehouse.catalog.transaction() as records:
            batch = create_batch(
                records,
                object_ids,
                namespace_id=self.namespace.namespace_id,
                bucket_id=BucketId(self.bucket.bucket_id),
                now=now,
                collection_ids=collection_ids,
            )
            records.batches.set(batch.batch_id, now=now, dedup_strategy=dedup)
            batch = records.batches.get(batch.batch_id)
            return submit(records, batch, settings=self.warehouse.settings, now=now)

    def batch(self, batch: Batch | str) -> Batch:
        with self.warehouse.catalog.reading() as records:
            return records.batches.get(batch if isinstance(batch, str) else batch.batch_id)

    def run(self, run_id: str = "run") -> list[StepReport]:
        """Claim everything that is queued and run it, as Dagster would: one run per part, its collections tier by tier."""
        reports = []
        for claimed in self.claim():
            for collection_id in claimed.collection_ids:
                collection = self.get(collection_id)
                name = f"{run_id}-{claimed.part.partition_key}-{claimed.part.attempt}"
                reports.append(run_step(self.warehouse, claimed.part.partition_key, collection, run_id=name))
        return reports

    def claim(self) -> Sequence[Any]:
        self.clock.move(1)
        with self.warehouse.catalog.transaction() as records:
            return claim(records, limit=1000, now=self.warehouse.now())

    def get(self, collection_id: str) -> Collection:
        with self.warehouse.catalog.reading() as records:
            return records.collections.get(collection_id, namespace_id=self.namespace.namespace_id)

    def cycle(self) -> Progress:
        """Poll the source and run the batches that come of it."""
        progress = self.poll()
        self.run()
        return progress

    # What there is

    def documents(self, collection: Collection | None = None) -> list[Document]:
        wanted = collection or self.passages
        found: list[Document] = []
        with self.warehouse.catalog.reading() as records:
            while page := records.documents.scan(wanted.collection_id, after=found[-1].document_id if found else ""):
                found += page
        return found

    def texts(self, collection: Collection | None = None) -> list[int]:
        """The `size` field of every document, sorted: enough to tell contents of different lengths apart."""
        return sorted(one.payload["size"] for one in self.documents(collection))

    def inferred(self) -> int:
        """Inputs that were inferred so far, over all steps."""
        with self.warehouse.catalog.reading() as records:
            return sum(records.batches.totals(batch.batch_id)["inferred"] for batch in records.batches.page(limit=10_000)[0])

    def assert_exact(self) -> None:
        """`verify` finds nothing wrong, and the running totals are the real numbers."""
        assert [(check.what, check.examples, check.error) for check in verify(self.warehouse) if not check.ok] == []
        assert_totals(self.warehouse.catalog)

    def assert_follows_source(self) -> None:
        """Every file has exactly one object, with its bytes' revision, and nothing else has one."""
        listed = {key.decode(): entry for key, (entry, _) in self.world.files.items()}
        objects = self.objects()
        assert sorted(objects) == sorted(listed)
        assert {path: one.blobs[0].etag for path, one in objects.items()} == {p: e.etag for p, e in listed.items()}
        assert self.keys() == dict.fromkeys(listed, KeyState.LIVE)
        assert_totals(self.warehouse.catalog)

    def statuses(self) -> set[BatchStatus]:
        return {batch.status for batch in self.batches()}

    def object_statuses(self) -> set[ObjectStatus]:
        return {one.status for one in self.objects().values()}


def assert_totals(catalog: Catalog) -> None:
    """Running totals equal what is counted."""
    with catalog.reading() as records:
        for bucket in records.buckets.all():
            found = records.objects.named(records.objects.ids_in_bucket(bucket.bucket_id)).values()
            real = (len(found), sum(one.size_bytes for one in found))
            assert (bucket.object_count, bucket.total_size_bytes) == real, bucket.bucket_name
        for collection in records.collections.all():
            query = "SELECT count(*) FROM documents WHERE collection_id = "
            mark = "?" if catalog.engine.dialect.name == "sqlite" else "%s"
            row = records.connection.exec_driver_sql(query + mark, (collection.collection_id,)).scalar_one()
            assert collection.document_count == row == records.documents.count(collection.collection_id)


@contextmanager
def opened_library(settings: Settings, clock: Clock) -> Iterator[Library]:
    """A new one over the catalog of these settings, with nothing at its source and in its index yet."""
    FakeSource.worlds.clear()
    FakeIndex.reset()
    warehouse = Warehouse(settings=settings, clock=clock)
    yield Library(warehouse, clock)
    warehouse.close()
    FakeSource.worlds.clear()
