"""Changes in a real bucket reach documents through a real queue: tick by tick, over a kill, and in a running daemon."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import boto3
import dagster as dg
import pytest

from mixpeek_dagster.definitions import resources
from mixpeek_dagster.definitions.feeds import feed_sensor
from mixpeek_dagster.definitions.resources import WarehouseResource
from mixpeek_dagster.models.batches import Batch, BatchStatus
from mixpeek_dagster.models.ids import SyncId
from mixpeek_dagster.pipeline.syncs import Progress, advance
from mixpeek_dagster.pipeline.warehouse import Warehouse
from tests.end_to_end.dev import Dev, graphql, running_dev
from tests.end_to_end.home import ROOT, STUB, Home
from tests.servers import S3Server, s3_client
from tests.storage.worlds import new_name, s3_settings
from tests.waiting import until

VISIBLE_S = 2
"""A message that was received and not deleted comes again after so many seconds."""

DIES = """
import os, signal, sys
from mixpeek_dagster.pipeline.feeds import follow
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.storage.s3 import S3Source

S3Source.acknowledge = lambda self, news: os.kill(os.getpid(), signal.SIGKILL)
follow(Warehouse.from_env(), sys.argv[1], budget_s=20)
"""


class Told:
    """A bucket that notifies a queue, and a warehouse with a collection over what is in it, after its first pass."""

    def __init__(self, server: S3Server, folder: Path) -> None:
        keys = {"aws_access_key_id": server.access_key_id, "aws_secret_access_key": server.secret_access_key}
        self.sqs: Any = boto3.client("sqs", endpoint_url=server.url, region_name=server.region, **keys)
        self.s3: Any = s3_client(server)
        self.bucket = new_name("feeds")
        self.s3.create_bucket(Bucket=self.bucket)
        made = self.sqs.create_queue(QueueName=self.bucket, Attributes={"VisibilityTimeout": str(VISIBLE_S)})["QueueUrl"]
        self.queue = f"{server.url}/{made.split('/', 3)[3]}"
        arn = self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        events = {"QueueArn": arn, "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}
        self.s3.put_bucket_notification_configuration(
            Bucket=self.bucket, NotificationConfiguration={"QueueConfigurations": [events]}
        )
        self.home = Home(folder)
        self.home.env["MIXPEEK_ALLOWED_HOSTS"] = server.host
        seldom = {"polling_interval": 86_400}
        cloud = {
            "provider": "s3",
            "connection": s3_settings(server, bucket_name=self.bucket, events={"queue_url": self.queue}),
            "sync_config": {"source_path": "/in/", **seldom},
        }
        disk = {"provider": "local", "sync_config": {"source_path": str(self.home.files), **seldom}}
        extractor = {"feature_extractor_name": STUB, "version": "v1", "field_passthrough": [{"source_path": "path"}]}
        self.home.apply(
            {
                "namespace": "told",
                "buckets": {
                    "files": {"schema": {"properties": {"content": {"type": "text"}}}, "syncs": {"cloud": cloud, "disk": disk}}
                },
                "collections": {"stub": {"source": {"type": "bucket", "bucket_ids": ["files"]}, "feature_extractor": extractor}},
            }
        )
        self.warehouse: Warehouse = self.home.warehouse
        with self.warehouse.catalog.reading() as records:
            self.syncs = {one.provider: one.sync_id for one in records.syncs.all()}
            (self.collection,) = records.collections.all()

    def put(self, name: str, body: bytes) -> None:
        self.s3.put_object(Bucket=self.bucket, Key=f"in/{name}", Body=body)

    def delete(self, name: str) -> None:
        self.s3.delete_object(Bucket=self.bucket, Key=f"in/{name}")

    def pass_over(self, provider: str = "s3") -> Progress:
        progress = advance(self.warehouse, SyncId(self.syncs[provider]), budget_s=20, force=True)
        assert progress is not None and progress.finished and progress.error is None, progress
        return progress

    def tick(self) -> str:
        """What one tick of the sensor says."""
        with (
            dg.DagsterInstance.ephemeral() as instance,
            dg.build_sensor_context(instance, resources={"warehouse": WarehouseResource()}) as context,
        ):
            return str(feed_sensor(threading.Event()).evaluate_tick(context).skip_message)

    def messages(self) -> int:
        """How many the queue holds, those that somebody has received and not deleted included."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=names)["Attributes"]
        return sum(int(found[name]) for name in names)

    def sizes(self) -> dict[str, int]:
        """Path of every object → the size in its catalog record."""
        with self.warehouse.catalog.reading() as records:
            (bucket,) = records.buckets.all()
            objects = records.objects.named(records.objects.ids_in_bucket(bucket.bucket_id)).values()
        return {str(one.fields["path"]): one.size_bytes for one in objects}

    def documents(self) -> dict[str, int]:
        """Path of every document → the size of what it was made of."""
        with self.warehouse.catalog.reading() as records:
            found = records.documents.scan(self.collection.collection_id)
        return {str(one.payload["path"]): int(one.payload["size"]) for one in found}

    def batches(self) -> list[Batch]:
        with self.warehouse.catalog.reading() as records:
            return records.batches.page()[0]


@pytest.fixture
def told(ministack: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Told:
    told = Told(ministack, tmp_path)
    monkeypatch.setitem(resources._shared.__dict__, "warehouse", told.warehouse)
    return told


def test_what_happens_in_the_bucket_is_recorded_and_then_acknowledged(told: Told) -> None:
    told.put("a.txt", b"one")
    told.put("b.txt", b"two")
    told.pass_over()
    told.tick()  # tells of the two again, which is no news
    assert (told.messages(), len(told.batches())) == (0, 1)

    told.put("a.txt", b"overwritten")
    told.put("new.txt", b"new text")
    told.delete("b.txt")
    until(lambda: told.messages() == 3)
    assert told.tick() == "3 messages: 1 new, 1 changed, 1 deleted."
    assert told.messages() == 0
    assert told.sizes() == {"a.txt": 11, "new.txt": 8}
    told.home.command("run")
    assert told.documents() == {"a.txt": 11, "new.txt": 8}
    counters = told.pass_over().counters
    assert (counters.new, counters.changed, counters.deleted) == (0, 0, 0)


def test_a_kill_between_recording_and_acknowledging_repeats_nothing(told: Told) -> None:
    told.put("a.txt", b"one")
    told.pass_over()
    told.tick()
    told.put("a.txt", b"overwritten")
    told.put("new.txt", b"new text")
    until(lambda: told.messages() == 2)
    command = [sys.executable, "-c", DIES, told.syncs["s3"]]
    died = subprocess.run(command, env=told.home.env, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert died.returncode == -9, died.stderr
    assert told.sizes() == {"a.txt": 11, "new.txt": 8}, "it was recorded"
    assert told.messages() == 2, "and not acknowledged"
    batches = len(told.batches())

    told.home.command("run")
    time.sleep(VISIBLE_S)
    said = until(lambda: said if (said := told.tick()).startswith("2 messages") else None, timeout_s=60)
    assert said == "2 messages: 0 new, 0 changed, 0 deleted."
    assert (told.messages(), len(told.batches())) == (0, batches)
    assert told.documents() == {"a.txt": 11, "new.txt": 8}


def feed_ticks(dev: Dev) -> list[dict[str, Any]]:
    """The newest ticks of the `feeds` sensor."""
    query = """query($s: SensorSelector!) { sensorOrError(sensorSelector: $s) { ... on Sensor {
        sensorState { ticks(limit: 50) { status skipReason error { message } } } } } }"""
    selector = {"repositoryLocationName": "mixpeek", "repositoryName": "__repository__", "sensorName": "feeds"}
    return list(graphql(dev, query, s=selector)["sensorOrError"]["sensorState"]["ticks"])


@pytest.mark.xdist_group("dev")
@pytest.mark.timeout(400)
def test_the_daemon_follows_the_queue_and_looks_again_at_what_changed(told: Told) -> None:
    told.put("a.txt", b"one")
    told.pass_over()
    rewritten = told.home.files / "rewritten.txt"
    rewritten.write_text("as it was listed")
    told.pass_over("local")
    rewritten.write_text("changed before it was read")
    with running_dev(told.home) as dev:
        until(lambda: told.documents() == {"a.txt": 3, "rewritten.txt": 26}, timeout_s=200)
        started = time.monotonic()
        told.put("a.txt", b"overwritten")
        told.put("new.txt", b"new text")
        wanted = {"a.txt": 11, "new.txt": 8, "rewritten.txt": 26}
        until(lambda: told.documents() == wanted, timeout_s=120)
        print(f"put in the bucket → documents: {time.monotonic() - started:.1f} s")
        told.delete("new.txt")
        until(lambda: "new.txt" not in told.documents(), timeout_s=60)
        assert until(lambda: told.messages() == 0, timeout_s=30)
        ticks = feed_ticks(dev)
    assert {one["status"] for one in ticks} <= {"SKIPPED", "STARTED"}, json.dumps(ticks)
    assert any("1 changed" in (one["skipReason"] or "") for one in ticks), json.dumps(ticks)
    assert {one.status for one in told.batches()} == {BatchStatus.COMPLETED}
    with told.warehouse.catalog.reading() as records:
        assert {one.passes for one in records.syncs.all()} == {1}, "nothing of it needed a pass"
