"""When the code location is loaded again, and when it is left alone."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mixpeek_dagster.definitions import reload, resources, ticks
from mixpeek_dagster.definitions.build import build_definitions
from mixpeek_dagster.definitions.plan import WarehousePlan, load_plan
from mixpeek_dagster.definitions.resources import WarehouseResource
from mixpeek_dagster.models.values import iso
from mixpeek_dagster.pipeline.sync_control import pause, trigger
from mixpeek_dagster.pipeline.warehouse import Warehouse
from tests.end_to_end.home import Home
from tests.pipeline.worlds import Clock, Library

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")


class Server:
    """The code server's origin, which counts how often it was asked to load again."""

    def __init__(self, error: Exception | None = None) -> None:
        self.reloads = 0
        self.error = error

    def reload_location(self, instance: object) -> None:
        self.reloads += 1
        if self.error is not None:
            raise self.error


@pytest.fixture
def follower(library: Library, monkeypatch: pytest.MonkeyPatch) -> Iterator["Follower"]:
    monkeypatch.setitem(vars(resources._shared), "warehouse", library.warehouse)  # what this process's code server would open
    monkeypatch.setattr(ticks, "WAIT_S", 0.1)
    for name in ("_LOOK_S", "_QUIET_S", "_YOUNGEST_S"):
        monkeypatch.setattr(reload, name, 0.01)
    with dg.instance_for_test() as instance:
        yield Follower(library.warehouse, instance, monkeypatch)


class Follower:
    """The sensor of a code server that was loaded when this was made."""

    def __init__(self, warehouse: Warehouse, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
        self.warehouse, self.instance, self.monkeypatch = warehouse, instance, monkeypatch
        self.plan = load_plan(warehouse.catalog)
        self.server = Server()
        self.retiring = threading.Event()
        self.cursor: str | None = None
        self.sensor = reload.reload_sensor(self.plan, self.build, retiring=self.retiring)

    def build(self, plan: WarehousePlan) -> dg.Definitions:
        return build_definitions(plan)

    def tick(self) -> str:
        """What the sensor says."""
        self.monkeypatch.setattr(dg.SensorEvaluationContext, "code_location_origin", self.server)
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources={"warehouse": WarehouseResource()}
        )
        said: Any = self.sensor(context)
        self.cursor = context.cursor
        return str(said.skip_message)


def change_bucket(library: Library, **changes: Any) -> None:
    with library.warehouse.catalog.transaction() as records:
        bucket = records.buckets.all()[0]
        later = iso(library.clock())
        records.buckets.put(bucket.model_copy(update={"updated_at": later, **changes}))


def test_a_change_reloads_the_location_once(library: Library, follower: Follower, clock: Clock) -> None:
    assert "those of the catalog" in follower.tick()
    clock.move(1)
    change_bucket(library, description="changed")
    assert follower.tick().startswith("Reloaded: 1 buckets, 1 collections, 1 syncs")
    assert follower.retiring.is_set(), "the other sensors of this server end their ticks"
    assert "asked to reload" in follower.tick()
    assert follower.server.reloads == 1
    clock.move(61)
    follower.tick()
    assert follower.server.reloads == 2, "it did not help the first time"


def test_running_totals_triggers_and_pauses_reload_nothing(library: Library, follower: Follower, clock: Clock) -> None:
    clock.move(1)
    library.world.put("a.txt", b"text")
    library.cycle()
    with library.warehouse.catalog.transaction() as records:
        records.buckets.count(library.bucket.bucket_id, objects=5, size_bytes=50)
        trigger(records, records.syncs.all()[0], full=False, now=library.warehouse.now())
        pause(records, records.syncs.all()[0], now=library.warehouse.now())
    assert "those of the catalog" in follower.tick()
    assert follower.server.reloads == 0


def test_what_cannot_be_built_is_not_loaded(library: Library, follower: Follower, clock: Clock) -> None:
    def broken(plan: WarehousePlan) -> dg.Definitions:
        raise dg.DagsterInvalidDefinitionError("two assets of one name")

    clock.move(1)
    follower.sensor = reload.reload_sensor(follower.plan, broken, retiring=follower.retiring)
    change_bucket(library, description="changed")
    assert "two assets of one name" in follower.tick()
    assert follower.server.reloads == 0
    assert not follower.retiring.is_set()


def test_a_location_without_a_server_says_so(library: Library, follower: Follower, clock: Clock) -> None:
    clock.move(1)
    follower.server.error = dg.DagsterInvariantViolationError("needs a GrpcServerRegistry")
    change_bucket(library, description="changed")
    assert "no server of its own" in follower.tick()
    assert not follower.retiring.is_set()


def test_a_change_that_is_taken_back_reloads_nothing(
    library: Library, follower: Follower, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.move(1)
    change_bucket(library, description="changed")
    monkeypatch.setattr(time, "sleep", lambda _: change_bucket(library, description=None))
    assert "those of the catalog" in follower.tick()
    assert follower.server.reloads == 0


def test_only_a_plan_from_the_catalog_follows_it(library: Library) -> None:
    plan = load_plan(library.warehouse.catalog)

    def names(plan: WarehousePlan) -> set[str]:
        return {sensor.name for sensor in build_definitions(plan).sensors or []}

    assert names(plan) - names(plan.model_copy(update={"revision": ""})) == {"definitions", "urgent_syncs"}


def test_the_revision_is_the_same_in_every_process(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.stub_library()
    program = (
        "from mixpeek_dagster.definitions.plan import load_plan; from mixpeek_dagster.pipeline.warehouse import Warehouse; "
        "print(load_plan(Warehouse.from_env().catalog).revision)"
    )
    seen = {home.python(program, PYTHONHASHSEED=seed) for seed in ("1", "2")}
    assert len(seen) == 1
