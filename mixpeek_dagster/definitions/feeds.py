"""The sensor that follows providers' change feeds."""

import threading

import dagster as dg

from mixpeek_dagster.definitions.resources import WarehouseResource
from mixpeek_dagster.definitions.ticks import looks
from mixpeek_dagster.errors import MixpeekError
from mixpeek_dagster.pipeline.feeds import follow_all
from mixpeek_dagster.pipeline.looks import Looked

_LOOK_S = 4.0


def feed_sensor(retiring: threading.Event) -> dg.SensorDefinition:
    """Every four seconds: take what change feeds tell. A tick lasts until something was told, or about 19 s; passes of the syncs go
    on beside it."""

    @dg.sensor(
        name="feeds",
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Follows the change feeds of syncs that have one.",
    )
    def follow_feeds(warehouse: WarehouseResource) -> dg.SkipReason:
        for left in looks(retiring, every_s=_LOOK_S):
            done = follow_all(warehouse.get(), budget_s=left)
            if any(_is_news(one) for one in done.values()):
                break
        failed = [f"{sync_id}: {result.message}" for sync_id, result in done.items() if isinstance(result, MixpeekError)]
        if failed:
            raise RuntimeError("; ".join(failed))
        looked = sum((one for one in done.values() if isinstance(one, Looked)), Looked())
        words = f"{looked.messages} messages: {looked.new} new, {looked.changed} changed, {looked.deleted} deleted."
        return dg.SkipReason(words if done else "No sync has a change feed.")

    return follow_feeds


def _is_news(result: Looked | MixpeekError) -> bool:
    return isinstance(result, MixpeekError) or result.messages > 0
