"""Telling of objects, and forgetting what was told long ago. Who is told, and how, is in `webhooks`."""

from collections.abc import Sequence
from datetime import timedelta

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.models.objects import StoredObject

KEPT = timedelta(days=90)
"""How long the feed of events goes back."""


def tell_objects(records: Records, event: str, objects: Sequence[StoredObject], *, now: str) -> None:
    """Record one event about each of many objects, in one statement for each namespace."""
    for namespace_id in {one.namespace_id for one in objects}:
        own = [one for one in objects if one.namespace_id == namespace_id]
        told = [(str(one.object_id), {"object_id": one.object_id, "bucket_id": one.bucket_id}) for one in own]
        records.events.add_many(event, "object", told, namespace_id=namespace_id, now=now)
