"""Records of webhooks and of deliveries: one row per event and place, until it has been taken or given up."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, delete, insert, select, update

from mixpeek_dagster.catalog.rows import find, insert_unique, update_unique
from mixpeek_dagster.catalog.webhook_tables import webhook_deliveries, webhooks
from mixpeek_dagster.errors import NotFound
from mixpeek_dagster.models.webhooks import Health, Webhook

_deliveries = webhook_deliveries.c
_OWN = {"webhook_id", "webhook_name", "is_active", "created_at", "updated_at"}


class Delivery(NamedTuple):
    """An event on its way to one place."""

    event_id: str
    target: str
    webhook_id: str | None
    channel: int
    url: str | None
    body: Mapping[str, Any]
    attempts: int


class WebhookRecords:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, webhook: Webhook, *, secrets: str | None) -> None:
        insert_unique(self._connection, webhooks, {**_row(webhook), "secrets": secrets}, taken=_taken(webhook))

    def put(self, webhook: Webhook, *, secrets: str | None) -> None:
        """Raises AlreadyExists for a name that another webhook has."""
        changed = update(webhooks).where(webhooks.c.webhook_id == webhook.webhook_id).values(**_row(webhook), secrets=secrets)
        update_unique(self._connection, changed, taken=_taken(webhook))

    def get(self, identifier: str) -> tuple[Webhook, str | None]:
        """A webhook by id or name, and its encrypted secrets.

        Raises:
            NotFound: there is none.
        """
        row = find(self._connection, webhooks, identifier, id="webhook_id", name="webhook_name")
        if row is None:
            raise NotFound(f"No webhook {identifier!r}.")
        return _value(row), row.secrets

    def all(self) -> list[Webhook]:
        query = select(webhooks).order_by(webhooks.c.created_at, webhooks.c.webhook_id)
        return [_value(row) for row in self._connection.execute(query)]

    def remove(self, webhook_id: str) -> None:
        self._connection.execute(delete(webhooks).where(webhooks.c.webhook_id == webhook_id))

    def set_health(self, webhook_id: str, health: Health, *, is_active: bool | None = None) -> None:
        values: dict[str, Any] = {"health": health.model_dump(mode="json")}
        if is_active is not None:
            values["is_active"] = is_active
        self._connection.execute(update(webhooks).where(webhooks.c.webhook_id == webhook_id).values(values))

    # Deliveries

    def schedule(self, deliveries: Sequence[Mapping[str, Any]]) -> None:
        if deliveries:
            self._connection.execute(insert(webhook_deliveries), list(deliveries))

    def has_due(self, *, now: str) -> bool:
        return self._connection.execute(self._due(now).limit(1)).first() is not None

    def claim(self, *, now: str, until: str, limit: int) -> list[Delivery]:
        """Take due deliveries, the oldest events first; nobody else takes them before `until`."""
        rows = self._connection.execute(self._due(now).order_by(_deliveries.seq, _deliveries.target).limit(limit)).all()
        taken = []
        for row in rows:
            mine = [_deliveries.event_id == row.event_id, _deliveries.target == row.target, _deliveries.attempts == row.attempts]
            statement = update(webhook_deliveries).where(*mine, _deliveries.next_attempt_at == row.next_attempt_at)
            if self._connection.execute(statement.values(next_attempt_at=until)).rowcount == 1:
                taken.append(Delivery(*(row._mapping[name] for name in Delivery._fields)))
        return taken

    def _due(self, now: str) -> Any:
        """Deliveries of webhooks that are paused wait."""
        joined = webhook_deliveries.outerjoin(webhooks, webhooks.c.webhook_id == _deliveries.webhook_id)
        query = select(webhook_deliveries).select_from(joined)
        is_open = _deliveries.webhook_id.is_(None) | webhooks.c.is_active
        return query.where(_deliveries.status == "pending", _deliveries.next_attempt_at <= now, is_open)

    def ended(
        self, one: Delivery, *, status: str, now: str, next_attempt_at: str | None = None, error: str | None = None
    ) -> None:
        """Record one attempt: `delivered`, `failed` for good, or `pending` until the next."""
        values: dict[str, Any] = {"status": status, "attempts": one.attempts + 1, "last_error": error}
        if status == "delivered":
            values["delivered_at"] = now
        if next_attempt_at is not None:
            values["next_attempt_at"] = next_attempt_at
        mine = [_deliveries.event_id == one.event_id, _deliveries.target == one.target]
        self._connection.execute(update(webhook_deliveries).where(*mine).values(values))

    def forget(self, *, before: str) -> int:
        """Delete deliveries that ended before a time."""
        ended = _deliveries.status != "pending"
        return self._connection.execute(delete(webhook_deliveries).where(ended, _deliveries.created_at < before)).rowcount


def _taken(webhook: Webhook) -> str:
    return f"Webhook name {webhook.webhook_name!r} is taken; choose another."


def _row(webhook: Webhook) -> dict[str, Any]:
    body = webhook.model_dump(mode="json", exclude=_OWN | {"health"}, exclude_none=True)
    return {**webhook.model_dump(include=_OWN), "body": body, "health": webhook.health.model_dump(mode="json")}


def _value(row: Row[Any]) -> Webhook:
    fields = {name: row._mapping[name] for name in _OWN}
    return Webhook(**row.body, **fields, health=Health(**row.health))
