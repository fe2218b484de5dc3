"""E-mail that tells of an event, through the operator's SMTP server."""

import json
import smtplib
import ssl
from collections.abc import Mapping
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any
from urllib.parse import unquote, urlsplit

from mixpeek_dagster.errors import Invalid
from mixpeek_dagster.models.webhooks import ChannelConfig
from mixpeek_dagster.pipeline.templates import filled
from mixpeek_dagster.settings import Settings

SUBJECT = "{{event_type}}: {{subject.type}} {{subject.id}}"


def check_mail(settings: Settings) -> None:
    """Raises Invalid when the operator has named no SMTP server."""
    if settings.smtp_url is None:
        raise Invalid("This server sends no e-mail; an operator can name an SMTP server in MIXPEEK_SMTP_URL.")


def send(settings: Settings, configs: ChannelConfig, body: Mapping[str, Any]) -> None:
    """Send one event to the addresses of a channel.

    Raises:
        Invalid: there is no SMTP server, or its URL is none.
        smtplib.SMTPException, OSError: it did not take the message.
    """
    check_mail(settings)
    parts = urlsplit(settings.smtp_url or "")
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
        raise Invalid("MIXPEEK_SMTP_URL is no URL such as smtp://user:password@host:587.")
    context = ssl.create_default_context()
    client: smtplib.SMTP
    if parts.scheme == "smtps":
        client = smtplib.SMTP_SSL(parts.hostname, parts.port or 465, timeout=configs.timeout, context=context)
    else:
        client = smtplib.SMTP(parts.hostname, parts.port or 587, timeout=configs.timeout)
    with client:
        client.ehlo_or_helo_if_needed()
        if parts.scheme == "smtp" and client.has_extn("starttls"):
            client.starttls(context=context)
        if parts.username:
            client.login(unquote(parts.username), unquote(parts.password or ""))
        hidden = list(configs.bcc_addresses or ())
        message = message_of(configs, body, sender=settings.smtp_from)
        client.send_message(message, to_addrs=[*(configs.to_addresses or ()), *(configs.cc_addresses or ()), *hidden])


def message_of(configs: ChannelConfig, body: Mapping[str, Any], *, sender: str) -> EmailMessage:
    """The message: subject and text from the channel's templates, else the event itself as JSON."""
    message = EmailMessage(policy=SMTP)
    subject = str(filled(configs.subject_template or SUBJECT, body))
    message["Subject"] = " ".join(subject.split())[:500]
    message["From"] = sender
    message["To"] = ", ".join(configs.to_addresses or ())
    if configs.cc_addresses:
        message["Cc"] = ", ".join(configs.cc_addresses)
    message["X-Mixpeek-Event-Id"] = str(body.get("event_id", ""))
    text = filled(configs.body_template, body) if configs.body_template else json.dumps(body, indent=2, ensure_ascii=False)
    message.set_content(str(text), subtype="html" if configs.content_type == "html" else "plain")
    return message
