"""News of S3 buckets from an SQS queue: as S3 sends them, through EventBridge, or through SNS.

The queue is the sync's own: whatever is in it is received and deleted, also what is malformed or about other places.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from mixpeek_dagster.errors import AccessDenied, ProviderDown, WrongConnection
from mixpeek_dagster.storage.feed import News
from mixpeek_dagster.storage.http import Http, read_all
from mixpeek_dagster.storage.places import Place
from mixpeek_dagster.storage.s3_credentials import CredentialSource
from mixpeek_dagster.storage.s3_requests import sign

AT_ONCE = 10
"""Messages of one request; SQS allows no more."""

LONGEST_ANSWER = 8 * 1024 * 1024


class QueueFeed:
    """News about one place from one queue."""

    def __init__(self, queue_url: str, place: Place, *, credentials: CredentialSource, http: Http, region: str) -> None:
        self._queue_url, self._place, self._credentials, self._http = queue_url, place, credentials, http
        host = urlsplit(queue_url).hostname or ""
        self._region = host.split(".")[1] if host.startswith("sqs.") and host.count(".") > 2 else region

    def news(self) -> News:
        """Up to ten messages, without waiting for any."""
        answer = self._ask("ReceiveMessage", MaxNumberOfMessages=AT_ONCE, WaitTimeSeconds=0)
        messages = answer.get("Messages") or []
        keys = dict.fromkeys(key for message in messages for key in self._keys(message.get("Body")))
        receipts = [str(message["ReceiptHandle"]) for message in messages]
        return News(keys=list(keys), receipts=receipts, messages=len(messages))

    def acknowledge(self, news: News) -> None:
        entries = [{"Id": str(number), "ReceiptHandle": receipt} for number, receipt in enumerate(news.receipts)]
        if entries:  # one that fails comes again, which is safe
            self._ask("DeleteMessageBatch", Entries=entries)

    def _keys(self, body: object) -> Iterator[bytes]:
        """The keys below our place that a message names; a message of another kind names none."""
        prefix = self._place.prefix.encode()
        for bucket, key in _named(_json(body)):
            if bucket == self._place.bucket and key.startswith(prefix):
                yield key

    def _ask(self, action: str, **fields: Any) -> Mapping[str, Any]:
        body = json.dumps({"QueueUrl": self._queue_url, **fields}).encode()
        headers = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": f"AmazonSQS.{action}"}
        parts = urlsplit(self._queue_url)
        response = self._http.send(
            lambda: sign(
                "POST",
                f"{parts.scheme}://{parts.netloc}/",
                {},
                headers,
                keys=self._credentials.get_frozen_credentials(),
                region=self._region,
                service="sqs",
                body=body,
            )
        )
        status, answer = response.status, _json(read_all(response, limit=LONGEST_ANSWER))
        if status == 200 and isinstance(answer, dict):
            return answer
        code = str(answer.get("__type", "")).rpartition("#")[2][:60] if isinstance(answer, dict) else ""
        said = f"Queue {parts.path} at {parts.hostname} answered {status} {code or '(no code)'}"
        if "NonExistentQueue" in code or "QueueDoesNotExist" in code:
            raise WrongConnection(f"{said}: there is no such queue; check events.queue_url.")
        if status in (400, 401, 403):
            raise AccessDenied(f"{said}: grant sqs:ReceiveMessage and sqs:DeleteMessage on the queue.")
        raise ProviderDown(f"{said}.")


def _json(text: object) -> Any:
    try:
        return json.loads(text) if isinstance(text, str | bytes) else None
    except ValueError:
        return None


def _named(body: Any) -> Iterator[tuple[str, bytes]]:
    """(bucket, key) of every file that a notification is about."""
    if not isinstance(body, dict):
        return
    if body.get("Type") == "Notification":  # SNS wraps what it passes on
        yield from _named(_json(body.get("Message")))
        return
    records = body.get("Records")
    for record in records if isinstance(records, list) else []:
        found = _bucket_and_key(record.get("s3") if isinstance(record, dict) else None)
        if found is not None:
            bucket, key = found
            yield bucket, unquote_to_bytes(key.replace("+", " "))
    if body.get("source") == "aws.s3":  # EventBridge does not encode keys
        found = _bucket_and_key(body.get("detail"))
        if found is not None:
            yield found[0], found[1].encode()


def _bucket_and_key(said: Any) -> tuple[str, str] | None:
    try:
        bucket, key = said["bucket"]["name"], said["object"]["key"]
    except (KeyError, TypeError, IndexError):
        return None
    return (bucket, key) if isinstance(bucket, str) and isinstance(key, str) and key else None
