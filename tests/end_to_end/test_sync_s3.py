"""Whole passes of the sync engine over real S3 servers: one lists in byte order, the other does not."""

from pathlib import Path
from typing import Any

import pytest

from mixpeek_dagster.models.ids import SyncId
from mixpeek_dagster.models.syncs import SyncSpec
from mixpeek_dagster.pipeline.manifest import Manifest, apply
from mixpeek_dagster.pipeline.syncs import Progress, advance
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.settings import Settings
from tests.servers import S3Server, s3_client
from tests.storage.worlds import new_name, s3_settings

KEYS = [f"{folder}{number:02}.txt" for folder in ("a/", "a-b/", "a.b/", "z/") for number in range(6)]


class World:
    """A bucket at a provider, and a warehouse that syncs from it."""

    def __init__(self, server: S3Server, home: Path) -> None:
        self.client: Any = s3_client(server)
        self.bucket = new_name("sync")
        self.client.create_bucket(Bucket=self.bucket)
        self.warehouse = Warehouse(
            settings=Settings(home=home, catalog_url=f"sqlite:///{home / 'catalog.db'}", allowed_hosts=frozenset({server.host}))
        )
        sync = {
            "provider": "s3",
            "connection": s3_settings(server, bucket_name=self.bucket),
            "sync_config": {"source_path": "/", "sync_mode": "incremental"},
        }
        bucket = {"schema": {"properties": {"content": {"type": "text"}}}, "syncs": {"cloud": sync}}
        manifest = Manifest.model_validate({"namespace": "sync", "buckets": {"files": bucket}, "collections": {}})
        apply(self.warehouse, manifest)
        with self.warehouse.catalog.reading() as records:
            (namespace,) = [records.namespaces.get("sync")]
            stored = records.buckets.get("files", namespace_id=namespace.namespace_id)
            (self.sync_id,) = [SyncId(each.sync_id) for each in records.syncs.all(stored.bucket_id)]

    def put(self, *keys: str, body: bytes = b"text") -> None:
        for key in keys:
            self.client.put_object(Bucket=self.bucket, Key=key, Body=body)

    def run(self) -> Progress:
        """One whole pass, a page or so at a time."""
        progress = advance(self.warehouse, self.sync_id, budget_s=0, force=True)
        while progress is not None and not progress.finished:
            assert progress.error is None, progress.error
            progress = advance(self.warehouse, self.sync_id, budget_s=0, force=True)
        assert progress is not None
        return progress


@pytest.fixture(params=["seaweedfs", "moto"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return World(request.getfixturevalue(request.param), tmp_path)


def test_the_seeds_words_are_understood() -> None:
    assert SyncSpec.model_validate({"source_path": "/videos/", "sync_mode": "incremental", "polling_interval": 3600})


def test_passes_see_new_changed_and_deleted_files_whatever_the_order(world: World) -> None:
    world.put(*KEYS)
    first = world.run().counters
    assert (first.listed, first.new, first.deleted) == (24, 24, 0)

    idle = world.run().counters
    assert (idle.new, idle.changed, idle.deleted, idle.unchanged) == (0, 0, 0, 24)

    world.put("a-b/00.txt", body=b"other")
    world.put("a/zz.txt")
    world.client.delete_object(Bucket=world.bucket, Key="a.b/03.txt")
    world.client.delete_object(Bucket=world.bucket, Key="z/05.txt")
    third = world.run().counters
    assert (third.new, third.changed, third.deleted) == (1, 1, 2)
    assert world.run().counters.unchanged == 23


def test_a_bucket_that_goes_away_deletes_nothing(world: World) -> None:
    world.put("a.txt", "b.txt")
    world.run()
    for key in ("a.txt", "b.txt"):
        world.client.delete_object(Bucket=world.bucket, Key=key)
    world.client.delete_bucket(Bucket=world.bucket)
    progress = advance(world.warehouse, world.sync_id, budget_s=5, force=True)
    assert progress is not None
    assert progress.error is not None
    assert "does not exist" in progress.error
    assert progress.counters.deleted == 0
