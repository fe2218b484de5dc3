"""The feed of events on both databases: nothing is missed by a reader, old ones go."""

from typing import Any

import pytest

from mixpeek_dagster.catalog import Catalog, Records
from mixpeek_dagster.catalog.events import Place
from mixpeek_dagster.models.namespaces import Namespace
from mixpeek_dagster.models.webhooks import Webhook

T = [f"2026-11-{day:02d}T00:00:00.000000Z" for day in range(1, 30)]


def tell(records: Records, namespace: Namespace, *names: str, now: str = T[0]) -> None:
    told: list[tuple[str, dict[str, Any]]] = [(name, {"name": name}) for name in names]
    records.events.add_many("object.created", "object", told, namespace_id=namespace.namespace_id, now=now)


class Reader:
    """Asks again and again, from where it stopped."""

    def __init__(self, catalog: Catalog, namespace: Namespace) -> None:
        self.catalog, self.namespace = catalog, namespace
        self.place = Place()
        self.seen: list[str] = []

    def read(self, *, limit: int = 2) -> list[str]:
        while True:
            with self.catalog.reading() as records:
                rows = records.events.after(self.place, namespace_id=self.namespace.namespace_id, limit=limit)
            if not rows:
                return self.seen
            self.seen += [row.resource_id for row in rows]
            self.place = Place(rows[-1].tx, rows[-1].seq)


def test_a_reader_sees_every_event_once_in_order(catalog: Catalog, namespace: Namespace) -> None:
    reader = Reader(catalog, namespace)
    with catalog.transaction() as records:
        tell(records, namespace, "a", "b", "c")
    assert reader.read() == ["a", "b", "c"]
    with catalog.transaction() as records:
        tell(records, namespace, "d")
        records.events.add("object.deleted", namespace_id=namespace.namespace_id, resource=("object", "e"), payload={}, now=T[0])
    assert reader.read() == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize("catalog_url", ["postgres"], indirect=True)
def test_an_event_that_is_committed_late_is_not_passed(catalog: Catalog, namespace: Namespace) -> None:
    reader = Reader(catalog, namespace)
    with catalog.transaction() as early:
        tell(early, namespace, "first")
        with catalog.transaction() as late:
            tell(late, namespace, "second")
        assert reader.read() == [], "the first is not there yet, so nothing behind it is"
    assert reader.read() == ["first", "second"]


@pytest.mark.parametrize("catalog_url", ["postgres"], indirect=True)
def test_a_lower_number_in_a_later_transaction_is_not_passed(catalog: Catalog, namespace: Namespace) -> None:
    reader = Reader(catalog, namespace)
    with catalog.transaction() as older:
        older.buckets.count("bkt_none", objects=1, size_bytes=1)  # type: ignore[arg-type]
        older.connection.exec_driver_sql("SELECT pg_current_xact_id()")
        with catalog.transaction() as younger:
            tell(younger, namespace, "young")
            tell(older, namespace, "old")
            older.connection.commit()
            assert reader.read() == ["old"], "its number is higher, but its transaction is the older one"
    assert reader.read() == ["old", "young"]


def test_only_old_delivered_events_are_pruned(catalog: Catalog, namespace: Namespace) -> None:
    with catalog.transaction() as records:
        tell(records, namespace, "old", now=T[0])
        tell(records, namespace, "young", now=T[20])
    with catalog.transaction() as records:
        assert records.events.prune(before=T[10], limit=100) == 1
        assert records.events.prune(before=T[10], limit=100) == 0
    assert Reader(catalog, namespace).read() == ["young"]


def test_events_wait_for_delivery_only_where_somebody_listens(catalog: Catalog, namespace: Namespace) -> None:
    with catalog.transaction() as records:
        tell(records, namespace, "unheard")
        assert not records.events.has_undelivered()
        channel = {"channel": "webhook", "configs": {"url": "https://example.com"}}
        body = {"webhook_name": "mine", "event_types": ["*"], "channels": [channel], "webhook_id": "wh_1"}
        records.webhooks.add(Webhook.model_validate({**body, "created_at": T[0], "updated_at": T[0]}), secrets=None)
        tell(records, namespace, "heard")
    with catalog.transaction() as records:
        assert [row.resource_id for row in records.events.undelivered()] == ["heard"]
