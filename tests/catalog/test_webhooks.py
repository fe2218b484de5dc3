"""Deliveries on both databases: each is taken once, waits for its turn, and ends."""

from mixpeek_dagster.catalog import Catalog
from mixpeek_dagster.models.namespaces import Namespace
from mixpeek_dagster.models.webhooks import Webhook
from mixpeek_dagster.pipeline.webhooks import fan_out

T = [f"2026-11-22T00:00:0{n}.000000Z" for n in range(10)]


def test_events_are_fanned_out_once_and_deliveries_claimed_once(catalog: Catalog, namespace: Namespace) -> None:
    channel = {"channel": "webhook", "configs": {"url": "https://example.com"}}
    body = {"webhook_name": "mine", "event_types": ["*"], "channels": [channel]}
    hook = Webhook.model_validate({**body, "webhook_id": "wh_1", "created_at": T[0], "updated_at": T[0]})
    with catalog.transaction() as records:
        records.webhooks.add(hook, secrets=None)
        for n in range(3):
            resource = ("object", f"obj_{n}")
            records.events.add(
                "object.created", namespace_id=namespace.namespace_id, resource=resource, payload={"n": n}, now=T[0]
            )
    with catalog.transaction() as records:
        assert fan_out(records, now=T[1]) == 3
        assert fan_out(records, now=T[1]) == 0
    with catalog.transaction() as records:
        assert records.webhooks.has_due(now=T[1])
        taken = records.webhooks.claim(now=T[1], until=T[5], limit=10)
        assert [one.body["metadata"]["n"] for one in taken] == [0, 1, 2]
        assert records.webhooks.claim(now=T[2], until=T[5], limit=10) == []
        records.webhooks.ended(taken[0], status="delivered", now=T[2])
        records.webhooks.ended(taken[1], status="pending", now=T[2], next_attempt_at=T[3], error="no")
    with catalog.transaction() as records:
        assert [one.attempts for one in records.webhooks.claim(now=T[4], until=T[6], limit=10)] == [1]
        records.webhooks.set_health("wh_1", hook.health, is_active=False)
        assert not records.webhooks.has_due(now=T[9])
        assert records.webhooks.forget(before=T[9]) == 1
