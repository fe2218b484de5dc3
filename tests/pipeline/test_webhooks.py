"""Webhooks against a real receiver: signed, tried again, paused, and told at least once."""

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from mixpeek_dagster.errors import AlreadyExists, UrlRefused
from mixpeek_dagster.models.webhooks import REDACTED, Webhook, WebhookBody
from mixpeek_dagster.pipeline import webhooks as pipeline
from mixpeek_dagster.pipeline.webhooks import PAUSE_AFTER, deliver, save_webhook
from tests.pipeline.worlds import Library


class Receiver:
    """Takes requests and answers them with `status`."""

    def __init__(self) -> None:
        self.status = 200
        self.requests: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.append((dict(self.headers), body))
                self.send_response(receiver.status)
                self.send_header("Location", "http://169.254.169.254/")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.host = f"127.0.0.1:{self.server.server_port}"

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.requests]

    def types(self) -> list[str]:
        return [one["event_type"] for one in self.bodies]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    opened = Receiver()
    yield opened
    opened.server.shutdown()
    opened.server.server_close()


@pytest.fixture
def world(library: Library, receiver: Receiver) -> Library:
    """The library, whose operator lets webhooks reach the receiver."""
    library.warehouse.settings = replace(library.warehouse.settings, allowed_hosts=frozenset({receiver.host}))
    return library


def hook(world: Library, receiver: Receiver, *types: str, **configs: Any) -> Webhook:
    channel = {"channel": "webhook", "configs": {"url": f"http://{receiver.host}/hook", **configs}}
    body = {"webhook_name": "mine", "event_types": types or ("*",), "channels": [channel]}
    return save_webhook(world.warehouse, WebhookBody.model_validate(body))


def now(world: Library) -> Webhook:
    with world.warehouse.catalog.reading() as records:
        return records.webhooks.get("mine")[0]


def test_a_finished_batch_is_told_signed_in_its_three_names(world: Library, receiver: Receiver) -> None:
    names = ("batch.completed", "collection.documents.batch_completed", "collection.documents.written")
    hook(world, receiver, *names, signing_secret="s3cret", headers={"X-Mixpeek-Secret": "h3ader"})
    batch = world.submit(world.add_objects({"obj_a": "a"}))
    world.run()
    told = deliver(world.warehouse)
    assert (told.delivered, told.failed) == (3, 0)
    assert sorted(receiver.types()) == sorted(names)
    headers, raw = next(one for one in receiver.requests if json.loads(one[1])["event_type"] == "batch.completed")
    parts = dict(part.split("=") for part in headers["X-Mixpeek-Signature"].split(","))
    wanted = hmac.new(b"s3cret", f"{parts['t']}.".encode() + raw, hashlib.sha256).hexdigest()
    assert parts["v1"] == wanted
    assert int(parts["t"]) == int(world.clock().timestamp())
    assert headers["X-Mixpeek-Secret"] == "h3ader"
    body = json.loads(raw)
    assert body["subject"] == {"type": "batch", "id": batch.batch_id}
    assert body["metadata"]["status"] == "COMPLETED"
    assert body["namespace_id"] == world.namespace.namespace_id
    assert set(body) == {"event_id", "event_type", "occurred_at", "namespace_id", "subject", "metadata", "cache_scope"}
    assert deliver(world.warehouse).words == "Nothing to deliver."
    assert now(world).health.last_success_at is not None


def test_a_batch_tells_the_url_it_was_submitted_with(world: Library, receiver: Receiver) -> None:
    batch = world.submit(world.add_objects({"obj_a": "a"}))
    with world.warehouse.catalog.transaction() as records:
        records.batches.set(batch.batch_id, now=world.warehouse.now(), webhook_url=f"http://{receiver.host}/batch")
    world.run()
    deliver(world.warehouse)
    (body,) = receiver.bodies
    assert (body["batch_id"], body["status"], body["documents_written"]) == (batch.batch_id, "COMPLETED", 1)
    assert body["failure_reason"] is None
    assert body["completed_at"]


def test_what_is_not_taken_is_tried_again_with_growing_pauses_and_the_same_id(world: Library, receiver: Receiver) -> None:
    hook(world, receiver, "batch.completed")
    receiver.status = 500
    world.submit(world.add_objects({"obj_a": "a"}))
    world.run()
    assert deliver(world.warehouse).failed == 1
    for pause in (5, 10, 20):
        world.clock.move(pause - 1)
        deliver(world.warehouse)
        world.clock.move(1)
        assert deliver(world.warehouse).failed == 1
    assert now(world).health.consecutive_failures == 4
    assert now(world).health.last_failure_cause == "The receiver answered 500."
    receiver.status = 204
    world.clock.move(40)
    assert deliver(world.warehouse).delivered == 1
    assert len({one["event_id"] for one in receiver.bodies}) == 1
    assert len(receiver.requests) == 5
    assert now(world).health.consecutive_failures == 0


def test_a_redirect_is_not_followed(world: Library, receiver: Receiver) -> None:
    hook(world, receiver, "batch.completed")
    receiver.status = 302
    world.submit(world.add_objects({"obj_a": "a"}))
    world.run()
    assert deliver(world.warehouse).failed == 1
    assert len(receiver.requests) == 1


def test_a_webhook_that_takes_nothing_is_paused_and_goes_on_when_made_active(world: Library, receiver: Receiver) -> None:
    hook(world, receiver, "batch.completed")
    receiver.status = 500
    for n in range(PAUSE_AFTER):
        world.submit(world.add_objects({f"obj_{n}": str(n)}))
    world.run()
    deliver(world.warehouse)
    paused = now(world)
    assert paused.is_active is False
    assert "20 deliveries" in str(paused.health.paused_reason)
    world.clock.move(1000)
    sent = len(receiver.requests)
    deliver(world.warehouse)
    assert len(receiver.requests) == sent
    receiver.status = 200
    save_webhook(world.warehouse, WebhookBody.model_validate({**paused.model_dump(), "is_active": True}), identifier="mine")
    assert deliver(world.warehouse).delivered == PAUSE_AFTER
    assert now(world).health.consecutive_failures == 0


def test_a_crash_between_sending_and_recording_sends_again(
    world: Library, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook(world, receiver, "batch.completed")
    world.submit(world.add_objects({"obj_a": "a"}))
    world.run()

    def dies(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "_record", dies)
        with pytest.raises(KeyboardInterrupt):
            deliver(world.warehouse)
    deliver(world.warehouse)
    assert len(receiver.requests) == 1  # another process has it, as far as we can know
    world.clock.move(pipeline.LEASE_S)
    deliver(world.warehouse)
    assert len({one["event_id"] for one in receiver.bodies}) == 1
    assert len(receiver.requests) == 2


def test_secrets_are_kept_encrypted_and_read_redacted(world: Library, receiver: Receiver) -> None:
    made = hook(world, receiver, signing_secret="s3cret", headers={"X-Key": "h3ader"})
    assert made.channels[0].configs.signing_secret == REDACTED
    assert made.channels[0].configs.headers == {"X-Key": REDACTED}
    assert b"s3cret" not in world.warehouse.settings.home.joinpath("catalog.db").read_bytes()
    again = save_webhook(world.warehouse, WebhookBody.model_validate(made.model_dump()), identifier=made.webhook_id)
    assert again.webhook_id == made.webhook_id
    world.submit(world.add_objects({"obj_a": "a"}))
    world.run()
    deliver(world.warehouse)
    assert receiver.requests[0][0]["X-Key"] == "h3ader"
    assert "X-Mixpeek-Signature" in receiver.requests[0][0]
    plain = made.model_dump()
    plain["channels"][0]["configs"]["signing_secret"] = ""
    save_webhook(world.warehouse, WebhookBody.model_validate(plain), identifier="mine")
    world.submit(world.add_objects({"obj_b": "b"}))
    world.run()
    receiver.requests.clear()
    deliver(world.warehouse)
    assert "X-Mixpeek-Signature" not in receiver.requests[0][0]


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "https://127.0.0.1/",
        "https://169.254.169.254/",
        "https://u:p@example.com/",
        "ftp://example.com",
        "https://[::1]/",
    ],
)
def test_places_inside_the_network_are_refused(world: Library, receiver: Receiver, url: str) -> None:
    with pytest.raises(UrlRefused):
        hook(world, receiver, url=url)


def test_a_name_that_resolves_to_an_inner_address_is_not_reached(world: Library, receiver: Receiver) -> None:
    hook(world, receiver, "batch.completed", url=f"https://localhost/{receiver.host}")
    world.submit(world.add_objects({"obj_a": "a"}))
    world.run()
    assert deliver(world.warehouse).failed == 1
    assert "not public" in str(now(world).health.last_failure_cause)


def test_two_webhooks_of_one_name_are_refused(world: Library, receiver: Receiver) -> None:
    hook(world, receiver)
    with pytest.raises(AlreadyExists):
        hook(world, receiver)


def test_a_template_is_filled_from_the_envelope(world: Library, receiver: Receiver) -> None:
    hook(
        world, receiver, "batch.completed", payload_template={"text": "{{event_type}}: {{ metadata.documents_written }}", "n": 1}
    )
    world.submit(world.add_objects({"obj_a": "a"}))
    world.run()
    deliver(world.warehouse)
    assert receiver.bodies == [{"text": "batch.completed: 1", "n": 1}]
