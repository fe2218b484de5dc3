"""A sync that fails in a way that could not even be recorded does not keep the others from being followed."""

import threading

import dagster as dg
import pytest

from mixpeek_dagster.definitions import one_pass, resources, sensors
from mixpeek_dagster.definitions.one_pass import run_once
from mixpeek_dagster.definitions.plan import load_plan
from mixpeek_dagster.definitions.resources import WarehouseResource
from mixpeek_dagster.definitions.sensors import urgent_syncs_sensor
from mixpeek_dagster.definitions.translator import Translator
from mixpeek_dagster.errors import CatalogError
from mixpeek_dagster.models.ids import SyncId
from mixpeek_dagster.models.syncs import Sync
from mixpeek_dagster.pipeline.creation import create_sync
from mixpeek_dagster.pipeline.sync_control import trigger
from mixpeek_dagster.pipeline.syncs import Progress, advance
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.testing import FakeSource, FakeWorld
from tests.pipeline.worlds import FAKE, NOW, Library, make_bucket

FAILURES = [CatalogError("The catalog's disk is full."), KeyError("a defect")]


@pytest.fixture(params=FAILURES, ids=["catalog", "defect"])
def failing(request: pytest.FixtureRequest, library: Library, monkeypatch: pytest.MonkeyPatch) -> Library:
    """A library whose sync fails whenever it is advanced."""
    monkeypatch.setitem(resources._shared.__dict__, "warehouse", library.warehouse)
    failing = library.sync.sync_id

    def failing_advance(warehouse: Warehouse, sync_id: SyncId, *, budget_s: float, force: bool = False) -> Progress | None:
        if sync_id == failing:
            raise request.param
        return advance(warehouse, sync_id, budget_s=budget_s, force=force)

    monkeypatch.setattr(sensors, "advance", failing_advance)
    monkeypatch.setattr(one_pass, "advance", failing_advance)
    return library


@pytest.fixture
def neighbour(failing: Library) -> Sync:
    """A sync that is made, and due, after the one that fails."""
    FakeSource.worlds["well"] = FakeWorld()
    body = {"provider": FAKE, "connection": {"world": "well"}, "sync_config": {"source_path": "/"}}
    failing.clock.move(1)
    with failing.warehouse.catalog.transaction() as records:
        bucket = make_bucket(records, failing.namespace)
        return create_sync(records, body, warehouse=failing.warehouse, bucket=bucket, now=NOW)


def passes(library: Library, sync: Sync) -> int:
    with library.warehouse.catalog.reading() as records:
        return records.syncs.get(sync.sync_id).passes


def test_syncs_that_were_asked_for_are_followed_beside_one_that_fails(failing: Library, neighbour: Sync) -> None:
    with failing.warehouse.catalog.transaction() as records:
        for sync in (failing.sync, neighbour):
            trigger(records, sync, full=False, now=failing.warehouse.now())
    failing.clock.move(1)
    retiring = threading.Event()
    retiring.set()  # one look
    sensor = urgent_syncs_sensor(load_plan(failing.warehouse.catalog), Translator(), retiring=retiring)
    given = {"warehouse": WarehouseResource()}
    with dg.DagsterInstance.ephemeral() as instance, dg.build_sensor_context(instance, resources=given) as context:
        result = sensor(context)
        assert isinstance(result, dg.SensorResult)
        assert passes(failing, neighbour) == 1
        with pytest.raises(RuntimeError, match=failing.sync.sync_id):
            sensor(context)


def test_one_pass_follows_the_others_and_says_what_failed(
    failing: Library, neighbour: Sync, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        monkeypatch.setattr(one_pass._OnePass, "instance", instance)
        report = run_once(failing.warehouse, now=True)
    assert passes(failing, neighbour) == 1
    assert report.passes[neighbour.sync_id].error is None
    assert report.passes[failing.sync.sync_id].error in ("The catalog's disk is full.", "KeyError: 'a defect'")
    assert not report.ok
