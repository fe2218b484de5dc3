"""Notifications of S3 in an SQS queue: against ministack, and every form and malformation of a message."""

import json
import time
from typing import Any

import boto3
import pytest

from mixpeek_dagster.errors import UrlRefused, WrongConnection
from mixpeek_dagster.storage.connect import open_source
from mixpeek_dagster.storage.feed import News
from mixpeek_dagster.storage.s3 import S3Source
from mixpeek_dagster.storage.s3_events import _json, _named
from tests.servers import S3Server, s3_client
from tests.storage.worlds import allow, new_name, s3_settings

RECORD = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "b"}, "object": {"key": "a+b%2Fc%2B.txt"}}}


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"Records": [RECORD, RECORD]}, [("b", b"a b/c+.txt")] * 2),
        ({"Type": "Notification", "Message": json.dumps({"Records": [RECORD]})}, [("b", b"a b/c+.txt")]),
        ({"source": "aws.s3", "detail": {"bucket": {"name": "b"}, "object": {"key": "a+b%.txt"}}}, [("b", b"a+b%.txt")]),
        ({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}, []),
        ({"Records": [{"eventSource": "aws:sns"}, None, 7, {"s3": None}, {"s3": {"bucket": "b", "object": []}}]}, []),
        ({"Records": "many"}, []),
        ({"Type": "Notification", "Message": "{broken"}, []),
        ({"source": "aws.s3", "detail": []}, []),
        ([], []),
        (None, []),
    ],
)
def test_what_a_message_names(body: Any, found: list[tuple[str, bytes]]) -> None:
    assert list(_named(_json(json.dumps(body)))) == found


class Queue:
    """A bucket that notifies a queue, and a source that follows it."""

    def __init__(self, server: S3Server, prefix: str = "in/") -> None:
        keys = {"aws_access_key_id": server.access_key_id, "aws_secret_access_key": server.secret_access_key}
        self.sqs: Any = boto3.client("sqs", endpoint_url=server.url, region_name=server.region, **keys)
        self.s3: Any = s3_client(server)
        self.bucket = new_name("told")
        self.s3.create_bucket(Bucket=self.bucket)
        made = self.sqs.create_queue(QueueName=self.bucket, Attributes={"VisibilityTimeout": "1"})["QueueUrl"]
        self.url = f"{server.url}/{made.split('/', 3)[3]}"
        arn = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        events = {"QueueArn": arn, "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}
        self.s3.put_bucket_notification_configuration(
            Bucket=self.bucket, NotificationConfiguration={"QueueConfigurations": [events]}
        )
        config = s3_settings(server, bucket=self.bucket, events={"queue_url": self.url})
        source = open_source("s3", config, source_path=prefix, settings=allow(server.host))
        assert isinstance(source, S3Source)
        self.source = source

    def put(self, key: str) -> None:
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=b"x")

    def news(self, wanted: int) -> list[News]:
        """News of at least so many messages."""
        found: list[News] = []
        deadline = time.monotonic() + 30
        while sum(one.messages for one in found) < wanted and time.monotonic() < deadline:
            one = self.source.news(None)
            found += [one] if one.messages else []
        return found


def test_changes_come_until_they_are_acknowledged_and_then_no_more(ministack: S3Server) -> None:
    queue = Queue(ministack)
    for key in ("in/a b+c.txt", "in/caf\u00e9/\U0001f389.txt", "out/elsewhere.txt"):
        queue.put(key)
    queue.s3.delete_object(Bucket=queue.bucket, Key="in/a b+c.txt")
    queue.sqs.send_message(QueueUrl=queue.url, MessageBody="no json {")
    first = queue.news(5)
    keys = {key for one in first for key in one.keys}
    assert keys == {b"in/a b+c.txt", "in/caf\u00e9/\U0001f389.txt".encode()}
    time.sleep(1.5)  # not acknowledged: visible again
    again = queue.news(5)
    assert {key for one in again for key in one.keys} == keys
    for one in again:
        queue.source.acknowledge(one)
    time.sleep(1.5)
    assert queue.source.news(None).messages == 0


def test_a_queue_that_is_not_there_or_not_public_says_so(ministack: S3Server) -> None:
    settings = s3_settings(ministack, bucket="b", events={"queue_url": f"{ministack.url}/000000000000/none"})
    source = open_source("s3", settings, source_path="", settings=allow(ministack.host))
    assert isinstance(source, S3Source)
    with pytest.raises(WrongConnection, match="no such queue"):
        source.news(None)
    with pytest.raises(UrlRefused):
        open_source("s3", {**settings, "endpoint_url": None}, source_path="", settings=allow())
