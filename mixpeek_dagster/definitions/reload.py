"""Follow the catalog: what is made, changed or deleted there appears in a running Dagster without a restart.

A sensor compares the catalog with the plan its code server was loaded from, and asks that server to load again when they differ. The
server's address comes with every tick, so nobody has to know where the UI is or whether there is one; the webserver and the daemon both
watch the server and take its new definitions over within a second. Runs go on in the old process, and ticks are finished there.
"""

import json
import threading
import time
from collections.abc import Callable
from datetime import datetime

import dagster as dg

from mixpeek_dagster.definitions.plan import WarehousePlan, load_plan
from mixpeek_dagster.definitions.resources import WarehouseResource
from mixpeek_dagster.definitions.ticks import looks
from mixpeek_dagster.pipeline.warehouse import Warehouse

_LOOK_S = 0.5
_QUIET_S = 1.0  # what belongs together is often made in a row
_LONGEST_S = 5.0  # … but one change waits no longer for the next
_YOUNGEST_S = 5.0  # no code server is replaced before it has served so long
_AGAIN_S = 60.0

Build = Callable[[WarehousePlan], dg.Definitions]


def reload_sensor(plan: WarehousePlan, build: Build, *, retiring: threading.Event) -> dg.SensorDefinition:
    """Reloads the code location when the catalog's plan is not `plan` any more.

    Args:
        build: makes definitions of a plan; what it cannot build is not loaded, and what is shown stays.
        retiring: set while the server is being replaced, so that other sensors end their ticks and let the successor work.
    """
    since = time.monotonic()
    current = _Current(plan)

    @dg.sensor(
        name="definitions",
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reloads this code location when buckets, collections or syncs are made, changed or deleted.",
    )
    def follow(context: dg.SensorEvaluationContext, warehouse: WarehouseResource) -> dg.SkipReason:
        fresh = _wait_for_change(warehouse.get(), current, retiring)
        if fresh is None:
            return dg.SkipReason("The definitions are those of the catalog.")
        if _was_asked(context.cursor, fresh.revision, now=warehouse.get().clock()):
            return dg.SkipReason("The catalog changed; this code server was asked to reload less than a minute ago.")
        time.sleep(max(0.0, since + _YOUNGEST_S - time.monotonic()))
        context.update_cursor(json.dumps({"revision": fresh.revision, "at": warehouse.get().now()}))
        try:
            dg.Definitions.validate_loadable(build(fresh))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the new definitions, the old ones stay
            context.log.error(f"The catalog's definitions cannot be loaded: {error}")
            return dg.SkipReason(f"The catalog changed, but its definitions cannot be loaded: {error}")
        return _reload(context, fresh, retiring)

    return follow


class _Current:
    """Which plan this process serves, and which state of the catalog is known to mean the same."""

    def __init__(self, plan: WarehousePlan) -> None:
        self.revision = plan.revision
        self.signature: str | None = None


def _wait_for_change(warehouse: Warehouse, current: _Current, retiring: threading.Event) -> WarehousePlan | None:
    """The catalog's plan once it differs and has come to rest; None when it stays the same for this tick."""
    fresh = next((made for _ in looks(retiring, every_s=_LOOK_S) if (made := _changed(warehouse, current))), None)
    if fresh is None:
        return None
    deadline = time.monotonic() + _LONGEST_S
    while time.monotonic() < deadline:
        time.sleep(_QUIET_S)
        later = _changed(warehouse, current)
        if later is None or later.revision == fresh.revision:
            return later
        fresh = later
    return fresh


def _changed(warehouse: Warehouse, current: _Current) -> WarehousePlan | None:
    with warehouse.catalog.reading() as records:
        signature = records.definitions.signature()
    if signature == current.signature:
        return None
    fresh = load_plan(warehouse.catalog)
    if fresh.revision == current.revision:
        current.signature = signature
        return None
    return fresh


def _was_asked(cursor: str | None, revision: str, *, now: datetime) -> bool:
    """Whether a reload for this very plan was tried lately, and did not help."""
    asked = json.loads(cursor) if cursor else {}
    return asked.get("revision") == revision and (now - datetime.fromisoformat(asked["at"])).total_seconds() < _AGAIN_S


def _reload(context: dg.SensorEvaluationContext, fresh: WarehousePlan, retiring: threading.Event) -> dg.SkipReason:
    origin = context.code_location_origin
    retiring.set()
    try:
        if origin is None:
            raise NotImplementedError
        origin.reload_location(context.instance)
    except (NotImplementedError, dg.DagsterInvariantViolationError):
        retiring.clear()
        return dg.SkipReason(
            "The catalog changed. This code location is no server of its own, so it cannot be reloaded from here: the daemon reads it "
            "again within a minute, the UI when its location is reloaded. `dagster dev` and `dagster code-server start` reload at once."
        )
    except Exception:
        retiring.clear()
        raise
    counts = [sum(len(getattr(one, name)) for one in fresh.namespaces) for name in ("buckets", "collections", "syncs")]
    return dg.SkipReason("Reloaded: {} buckets, {} collections, {} syncs.".format(*counts))
