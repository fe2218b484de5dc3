"""The sensor that follows providers' change feeds."""

import dagster as dg

from mixpeek_dagster.definitions.resources import WarehouseResource
from mixpeek_dagster.errors import MixpeekError
from mixpeek_dagster.pipeline.feeds import Looked, follow_all

_TICK_S = 15.0
_EVERY_LOOP_S = 4


def feed_sensor() -> dg.SensorDefinition:
    """With every loop of the daemon: take what change feeds tell, for at most about 15 s. Passes of the syncs go on beside it."""

    @dg.sensor(
        name="feeds",
        minimum_interval_seconds=_EVERY_LOOP_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Follows the change feeds of syncs that have one.",
    )
    def follow_feeds(warehouse: WarehouseResource) -> dg.SkipReason:
        done = follow_all(warehouse.get(), budget_s=_TICK_S)
        failed = [f"{sync_id}: {result.message}" for sync_id, result in done.items() if isinstance(result, MixpeekError)]
        if failed:
            raise RuntimeError("; ".join(failed))
        looked = sum((one for one in done.values() if isinstance(one, Looked)), Looked())
        words = f"{looked.messages} messages: {looked.new} new, {looked.changed} changed, {looked.deleted} deleted."
        return dg.SkipReason(words if done else "No sync has a change feed.")

    return follow_feeds
