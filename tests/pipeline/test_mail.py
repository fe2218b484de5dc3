"""E-mail of webhooks, taken by a real SMTP server on loopback."""

import socketserver
import threading
from collections.abc import Iterator
from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, cast

import pytest

from mixpeek_dagster.errors import Invalid
from mixpeek_dagster.models.webhooks import WebhookBody
from mixpeek_dagster.pipeline.webhooks import deliver, save_webhook
from tests.pipeline.worlds import Library


class PostOffice(socketserver.ThreadingTCPServer):
    """Speaks as much SMTP as a client needs; refuses recipients while `is_closed`."""

    daemon_threads = True

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.is_closed = False
        super().__init__(("127.0.0.1", 0), Conversation)

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.server_address[1]}"


class Conversation(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        office = cast(PostOffice, self.server)
        self.wfile.write(b"220 ready\r\n")
        for line in self.rfile:
            word = line[:4].upper()
            if word == b"RCPT":
                office.recipients.append(line.decode().strip())
            if word == b"RCPT" and office.is_closed:
                self.wfile.write(b"550 no such box\r\n")
            elif word == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = iter(self.rfile.readline, b".\r\n")
                message = message_from_bytes(b"".join(lines), policy=policy.default)
                office.messages.append(message)
                self.wfile.write(b"250 taken\r\n")
            elif word == b"QUIT":
                self.wfile.write(b"221 bye\r\n")
                return
            else:
                self.wfile.write(b"250 ok\r\n")


@pytest.fixture
def office() -> Iterator[PostOffice]:
    opened = PostOffice()
    threading.Thread(target=opened.serve_forever, daemon=True).start()
    yield opened
    opened.shutdown()
    opened.server_close()


@pytest.fixture
def world(library: Library, office: PostOffice) -> Library:
    """The library, whose operator has named the post office."""
    library.warehouse.settings = replace(library.warehouse.settings, smtp_url=office.url, smtp_from="warehouse@example.com")
    return library


def subscribe(world: Library, **configs: Any) -> None:
    channel = {"channel": "email", "configs": {"to_addresses": ["ann@example.com"], **configs}}
    body = {"webhook_name": "mail", "event_types": ["batch.completed"], "channels": [channel]}
    save_webhook(world.warehouse, WebhookBody.model_validate(body))


def finish_a_batch(world: Library) -> None:
    world.submit(world.add_objects({"obj_a": "a"}))
    world.run()


def test_an_event_arrives_as_mail(world: Library, office: PostOffice) -> None:
    subscribe(world, subject_template="Done: {{subject.id}}", bcc_addresses=["bob@example.com"])
    finish_a_batch(world)
    assert deliver(world.warehouse).delivered == 1
    (mail,) = office.messages
    assert mail["Subject"].startswith("Done: btch_")
    assert (mail["From"], mail["To"], mail["Bcc"]) == ("warehouse@example.com", "ann@example.com", None)
    assert '"event_type": "batch.completed"' in mail.get_content()
    assert [one.partition("<")[2].partition(">")[0] for one in office.recipients] == ["ann@example.com", "bob@example.com"]


def test_a_mail_that_is_not_taken_is_tried_again(world: Library, office: PostOffice) -> None:
    subscribe(world, body_template="<p>{{event_type}}</p>", content_type="html")
    finish_a_batch(world)
    office.is_closed = True
    told = deliver(world.warehouse)
    assert (told.delivered, told.failed) == (0, 1)
    with world.warehouse.catalog.reading() as records:
        health = records.webhooks.get("mail")[0].health
    assert health.last_failure_cause == "SMTPRecipientsRefused: the mail server did not take the message."
    office.is_closed = False
    world.clock.move(60)
    assert deliver(world.warehouse).delivered == 1
    assert office.messages[0].get_content_subtype() == "html"
    assert office.messages[0].get_content().strip() == "<p>batch.completed</p>"


def test_without_a_mail_server_no_webhook_asks_for_mail(library: Library) -> None:
    with pytest.raises(Invalid, match="MIXPEEK_SMTP_URL"):
        subscribe(library)


@pytest.mark.parametrize("address", ["ann", "ann@example.com\r\nBcc: x@example.com", "", "ä@example.com"])
def test_what_is_no_address_is_refused(world: Library, address: str) -> None:
    with pytest.raises(ValueError, match="to_addresses"):
        subscribe(world, to_addresses=[address])
