"""Tell webhooks what happened: events of the outbox become deliveries, deliveries become signed requests, until each is taken.

At least once: a delivery that was sent when the process died is sent again, with the same `event_id`. What a receiver does not take is
tried again with growing pauses; a webhook that takes nothing for long is paused, and its deliveries wait for it.
"""

import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial
from secrets import token_hex
from smtplib import SMTPException
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.catalog.webhooks import Delivery
from mixpeek_dagster.errors import MixpeekError, NotFound
from mixpeek_dagster.models.webhooks import REDACTED, Channel, Health, Webhook, WebhookBody
from mixpeek_dagster.pipeline.connections import decrypt, encrypt
from mixpeek_dagster.pipeline.mail import check_mail, send
from mixpeek_dagster.pipeline.templates import filled
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.storage.egress import check_receiver, open_pools

SIGNATURE = "X-Mixpeek-Signature"
MAX_ATTEMPTS = 12
FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 3600.0
PAUSE_AFTER = 20
"""So many failures in a row pause a webhook."""
LEASE_S = 120.0
KEEP_S = 7 * 86_400.0
THREADS = 8
BUDGET_S = 15.0
_CHUNK = 500
_AT_ONCE = 5 * THREADS
_SECRETS = ("signing_secret", "webhook_url")


# Webhooks


def save_webhook(warehouse: Warehouse, body: WebhookBody, *, identifier: str | None = None) -> Webhook:
    """Make a webhook, or replace the one that is named. Secrets are encrypted; `redacted` keeps the one there was.

    Raises:
        NotFound: there is none to replace. AlreadyExists: the name is taken.
        UrlRefused: a URL may not be reached, or is not https.
    """
    now = warehouse.now()
    with warehouse.catalog.transaction() as records:
        before, sealed = records.webhooks.get(identifier) if identifier is not None else (None, None)
        known = _open(warehouse, sealed)
        secrets = [_secrets_of(one, known[place] if place < len(known) else {}) for place, one in enumerate(body.channels)]
        for channel, own in zip(body.channels, secrets):
            if channel.channel == "email":
                check_mail(warehouse.settings)
            else:
                url = str(own.get("webhook_url") or channel.target)
                check_receiver(url, allowed_hosts=warehouse.settings.allowed_hosts)
        fresh = body.is_active and not (before and before.is_active)
        webhook = Webhook(
            **{**body.model_dump(exclude={"channels"}), "channels": [_redacted(one) for one in body.channels]},
            webhook_id=before.webhook_id if before else f"wh_{token_hex(8)}",
            health=before.health if before and not fresh else Health(),
            created_at=before.created_at if before else now,
            updated_at=now,
        )
        sealed = encrypt(json.dumps(secrets), warehouse.settings) if any(secrets) else None
        if before:
            records.webhooks.put(webhook, secrets=sealed)
        else:
            records.webhooks.add(webhook, secrets=sealed)
    return webhook


def _secrets_of(channel: Channel, before: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: getattr(channel.configs, name) for name in _SECRETS}
    secrets = {name: before.get(name) if value == REDACTED else value for name, value in given.items()}
    headers = {
        name: (before.get("headers") or {}).get(name, "") if value == REDACTED else value
        for name, value in (channel.configs.headers or {}).items()
    }
    return {name: value for name, value in {**secrets, "headers": headers}.items() if value}


def _redacted(channel: Channel) -> Channel:
    configs = channel.configs
    hidden: dict[str, Any] = {name: REDACTED if getattr(configs, name) else None for name in _SECRETS}
    hidden["headers"] = dict.fromkeys(configs.headers, REDACTED) if configs.headers else None
    return channel.model_copy(update={"configs": configs.model_copy(update=hidden)})


def _open(warehouse: Warehouse, sealed: str | None) -> list[dict[str, Any]]:
    return list(json.loads(decrypt(sealed, warehouse.settings))) if sealed else []


# Events → deliveries


def fan_out(records: Records, *, now: str, limit: int = _CHUNK) -> int:
    """Make deliveries of events that nobody has been told of; how many events."""
    events = records.events.undelivered(limit=limit)
    if not events:
        return 0
    hooks = records.webhooks.all()
    deliveries: list[dict[str, Any]] = []
    for event in events:
        common = {"event_id": event.event_id, "seq": event.seq, "body": envelope(event), "status": "pending", "attempts": 0}
        common |= {"next_attempt_at": now, "created_at": now}
        for hook in hooks:
            if hook.wants(event.event_type, event.resource_type):
                places = range(len(hook.channels))
                own = {"webhook_id": hook.webhook_id, "url": None}
                deliveries += [{**common, **own, "channel": n, "target": f"{hook.webhook_id}:{n}"} for n in places]
        if event.resource_type == "batch":
            batch = records.batches.find(event.resource_id)
            if batch is not None and batch.webhook_url:
                body = {**event.payload, **common["body"], "progress": {"processed": batch.item_count, "total": batch.item_count}}
                place = {"webhook_id": None, "url": batch.webhook_url, "channel": 0, "target": "batch"}
                deliveries.append({**common, **place, "body": body})
    records.webhooks.schedule(deliveries)
    records.events.delivered([event.seq for event in events], now=now)
    return len(events)


def envelope(event: Any) -> dict[str, Any]:
    """An event as receivers get it; `event_id` stays the same however often it is sent."""
    return {
        "event_id": event.event_id,
        "event_type": event.event_type,
        "occurred_at": event.created_at,
        "namespace_id": event.namespace_id,
        "subject": {"type": event.resource_type, "id": event.resource_id},
        "metadata": event.payload,
        "cache_scope": f"{event.namespace_id}:{event.resource_type}:{event.resource_id}",
    }


# Deliveries → requests


@dataclass
class Told:
    """What a round of deliveries did."""

    events: int = 0
    delivered: int = 0
    failed: int = 0
    given_up: int = 0

    @property
    def words(self) -> str:
        if not (self.events or self.delivered or self.failed):
            return "Nothing to deliver."
        return (
            f"{self.events} events; {self.delivered} deliveries taken, {self.failed} to be tried again, {self.given_up} given up."
        )


def deliver(warehouse: Warehouse, *, limit: int = 1000) -> Told:
    """Tell everybody who is due; at most `limit` deliveries, and for about `BUDGET_S`: what is left waits for the next call."""
    told, deadline = Told(), time.monotonic() + BUDGET_S
    while has_events(warehouse) and time.monotonic() < deadline:
        with warehouse.catalog.transaction() as records:
            events = fan_out(records, now=warehouse.now())
        if not events:
            break  # another process has them
        told.events += events
    done = 0
    while done < limit and time.monotonic() < deadline:
        with warehouse.catalog.reading() as records:
            if not records.webhooks.has_due(now=warehouse.now()):
                break
        with warehouse.catalog.transaction() as records:
            until = warehouse.now(plus_s=LEASE_S)
            claimed = records.webhooks.claim(now=warehouse.now(), until=until, limit=min(_AT_ONCE, limit - done))
        if not claimed:
            break
        done += len(claimed)
        with ThreadPoolExecutor(THREADS, thread_name_prefix="webhook") as pool:
            errors = list(pool.map(partial(_attempt, warehouse), claimed))
        for one, error in zip(claimed, errors):
            _record(warehouse, one, error, told)
    if told.delivered:
        with warehouse.catalog.transaction() as records:
            records.webhooks.forget(before=warehouse.now(plus_s=-KEEP_S))
    return told


def has_events(warehouse: Warehouse) -> bool:
    """Whether an event waits; asked without keeping writers waiting."""
    with warehouse.catalog.reading() as records:
        return records.events.has_undelivered()


def _attempt(warehouse: Warehouse, one: Delivery) -> str | None:
    """Send one delivery; None when it was taken, else why not."""
    try:
        if (mail := _mail(warehouse, one)) is not None:
            send(warehouse.settings, mail.configs, one.body)
            return None
        url, headers, body, timeout_s = _request(warehouse, one)
        check_receiver(url, allowed_hosts=warehouse.settings.allowed_hosts)
        pools = _pools(warehouse.settings.allowed_hosts)
        timeout = urllib3.Timeout(connect=min(timeout_s, 10.0), read=timeout_s)
        response = pools.request(
            "POST", url, body=body, headers=headers, timeout=timeout, redirect=False, retries=False, preload_content=False
        )
        try:
            return None if 200 <= response.status < 300 else f"The receiver answered {response.status}."
        finally:
            response.close()
    except MixpeekError as error:
        return error.message[:500]
    except SMTPException as error:
        return f"{type(error).__name__}: the mail server did not take the message."
    except (HTTPError, OSError, ValueError) as error:
        return f"{type(error).__name__}: no answer from the receiver."


def _mail(warehouse: Warehouse, one: Delivery) -> Channel | None:
    """The channel, when it is one of e-mail."""
    if one.webhook_id is None:
        return None
    with warehouse.catalog.reading() as records:
        channels = records.webhooks.get(one.webhook_id)[0].channels
    return channels[one.channel] if one.channel < len(channels) and channels[one.channel].channel == "email" else None


def _request(warehouse: Warehouse, one: Delivery) -> tuple[str, dict[str, str], bytes, float]:
    headers = {"Content-Type": "application/json", "User-Agent": "mixpeek-dagster", "X-Mixpeek-Event-Id": one.event_id}
    if one.webhook_id is None:
        return one.url or "", headers, _bytes(one.body), 10.0
    with warehouse.catalog.reading() as records:
        hook, sealed = records.webhooks.get(one.webhook_id)
    if one.channel >= len(hook.channels):
        raise NotFound(f"Webhook {one.webhook_id} has no channel {one.channel} any more.")
    channel = hook.channels[one.channel]
    known = _open(warehouse, sealed)
    secrets = known[one.channel] if one.channel < len(known) else {}
    if channel.channel == "slack":
        return str(secrets["webhook_url"]), headers, _bytes(_slack(channel, one.body)), channel.configs.timeout
    template = channel.configs.payload_template
    body = _bytes(filled(template, one.body) if template else one.body)
    headers |= secrets.get("headers") or {}
    if secret := secrets.get("signing_secret"):
        headers[SIGNATURE] = signature(body, secret=str(secret), at=warehouse.clock())
    return channel.configs.url or "", headers, body, channel.configs.timeout


def signature(body: bytes, *, secret: str, at: datetime) -> str:
    """`t=<unix>,v1=<hex>`: HMAC-SHA256 over `<t>.` and the body as it is sent."""
    seconds = int(at.timestamp())
    digest = hmac.new(secret.encode(), f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={seconds},v1={digest}"


def _slack(channel: Channel, body: Mapping[str, Any]) -> dict[str, Any]:
    subject = body["subject"]
    text = f"{body['event_type']}: {subject['type']} {subject['id']}"
    extra = {name: getattr(channel.configs, name) for name in ("channel", "username", "icon_emoji", "icon_url")}
    return {"text": text, **{name: value for name, value in extra.items() if value}}


def _bytes(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


@lru_cache(maxsize=4)
def _pools(allowed_hosts: frozenset[str]) -> urllib3.PoolManager:
    return open_pools(allowed_hosts=allowed_hosts)


def _record(warehouse: Warehouse, one: Delivery, error: str | None, told: Told) -> None:
    now = warehouse.now()
    with warehouse.catalog.transaction() as records:
        if error is None:
            records.webhooks.ended(one, status="delivered", now=now)
            told.delivered += 1
        elif one.attempts + 1 >= MAX_ATTEMPTS:
            records.webhooks.ended(one, status="failed", now=now, error=error)
            told.given_up += 1
        else:
            pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**one.attempts)
            again = warehouse.now(plus_s=pause)
            records.webhooks.ended(one, status="pending", now=now, next_attempt_at=again, error=error)
            told.failed += 1
        if one.webhook_id is not None:
            _note(records, one.webhook_id, error, now=now)


def _note(records: Records, webhook_id: str, error: str | None, *, now: str) -> None:
    """Keep the webhook's health; too many failures in a row pause it."""
    try:
        hook, _ = records.webhooks.get(webhook_id)
    except NotFound:
        return
    if error is None:
        records.webhooks.set_health(webhook_id, Health(last_success_at=now))
        return
    health = hook.health
    failures = health.consecutive_failures + 1
    changed: dict[str, Any] = {
        "consecutive_failures": failures,
        "first_failure_at": health.first_failure_at or now,
        "last_failure_at": now,
        "last_failure_cause": error,
    }
    is_paused = failures >= PAUSE_AFTER and hook.is_active
    if is_paused:
        changed |= {"paused_at": now, "paused_reason": f"{failures} deliveries in a row failed; the last: {error}"}
    records.webhooks.set_health(webhook_id, health.model_copy(update=changed), is_active=False if is_paused else None)
