"""What a person at the Dagster UI sees of a sync, and can do about it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import dagster as dg
import pytest

from mixpeek_dagster.definitions import resources
from mixpeek_dagster.definitions.build import build_definitions
from mixpeek_dagster.definitions.confirmation import CONFIRM_JOB
from mixpeek_dagster.definitions.plan import load_plan
from mixpeek_dagster.definitions.resources import WarehouseResource
from mixpeek_dagster.errors import AccessDenied, ProviderDown
from tests.pipeline.worlds import Library


@pytest.fixture(autouse=True)
def _shared(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resources of this process are over the library's warehouse, as those of a code server are over its one warehouse."""
    monkeypatch.setitem(resources._shared.__dict__, "warehouse", library.warehouse)


def definitions(library: Library) -> dg.Definitions:
    return build_definitions(load_plan(library.warehouse.catalog))


def tick(library: Library, made: dg.Definitions | None = None) -> Any:
    """What the sync's sensor says now; that of definitions that were `made` before, if given."""
    library.clock.move(1)
    repository = (made or definitions(library)).get_repository_def()
    (sensor,) = [one for one in repository.sensor_defs if one.name.startswith("sync_")]
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_sensor_context(instance, resources={"warehouse": WarehouseResource()}, repository_def=repository) as context,
    ):
        return sensor.evaluate_tick(context)


def observed(library: Library) -> Mapping[str, Any]:
    (event,) = tick(library).asset_events
    return {name: value.value for name, value in event.metadata.items()}


def remove(library: Library, count: int) -> None:
    for name in sorted(library.world.files)[:count]:
        library.world.delete(name)


def test_an_observation_answers_what_a_person_asks(library: Library) -> None:
    for number in range(3):
        library.world.put(f"f{number}.txt", b"12345")
    seen = observed(library)
    expected = {"objects": 3, "bytes": 15, "listed": 3, "new": 3, "changed": 0, "deleted": 0, "failed": 0, "backlog": 3}
    assert {name: seen[name] for name in expected} == expected
    assert (seen["listing requests"], seen["sync"], seen["sync status"]) == (1, library.sync.sync_id, "ACTIVE")
    now = library.now()
    assert now.last_pass_at is not None
    assert now.next_pass_at is not None
    assert seen["last pass"] == datetime.fromisoformat(now.last_pass_at).timestamp()
    assert seen["next pass"] == datetime.fromisoformat(now.next_pass_at).timestamp()
    assert "to confirm" not in seen
    said = tick(library).skip_message
    assert "3 listed in 1 requests" in said
    assert "3 objects wait for extraction" in said


def test_two_syncs_of_a_bucket_are_added_up_and_told_apart(library: Library) -> None:
    from mixpeek_dagster.definitions.metadata import bucket_metadata
    from mixpeek_dagster.pipeline.sync_reports import report_of

    library.world.put("a.txt", b"a")
    library.poll()
    with library.warehouse.catalog.reading() as records:
        bucket = records.buckets.get(library.bucket.bucket_id, namespace_id=library.namespace.namespace_id)
        report = report_of(records, records.syncs.get(library.sync.sync_id))
    metadata, _ = bucket_metadata(bucket, [report, report])
    assert metadata["new"] == 2
    assert "sync" not in metadata
    assert len(metadata["syncs"].records) == 2


def test_a_file_that_may_not_be_asked_for_is_a_problem_of_the_sync(library: Library) -> None:
    for name in ("a.txt", "b.txt"):
        library.world.put(name, b"12345")
    library.poll()
    library.world.delete("a.txt")

    def refuse(name: str) -> None:
        if name == "head":
            raise AccessDenied("403 on a.txt")

    library.world.before = refuse
    library.set_sync(next_pass_at=library.warehouse.now())
    seen = observed(library)
    assert (seen["problem"], seen["deleted"], seen["objects"]) == ("403 on a.txt", 0, 2)


@pytest.mark.parametrize("when", ["before the tick", "during the tick"])
def test_the_sensor_of_a_sync_that_was_deleted_says_so(library: Library, when: str) -> None:
    repository_made_before = definitions(library)

    def delete(_: str) -> None:
        with library.warehouse.catalog.transaction() as records:
            records.syncs.remove(library.sync.sync_id)
        raise ProviderDown("503")

    if when == "before the tick":
        with pytest.raises(ProviderDown):
            delete("")
    library.world.before = delete
    assert tick(library, repository_made_before).skip_message == f"Sync {library.sync.sync_id} was deleted."


def test_held_deletes_are_confirmed_from_the_launchpad(library: Library) -> None:
    for number in range(300):
        library.world.put(f"f{number:03d}.txt", b"12345")
    library.poll()
    remove(library, 200)
    library.set_sync(next_pass_at=library.warehouse.now())
    seen = observed(library)
    assert seen["held"] == 200
    assert f"sync_id: {library.sync.sync_id}" in seen["to confirm"]
    assert CONFIRM_JOB in seen["to confirm"]
    job = definitions(library).resolve_job_def(CONFIRM_JOB)
    config = {"ops": {"confirm": {"config": {"sync_id": library.sync.sync_id}}}}
    with dg.DagsterInstance.ephemeral() as instance:
        assert job.execute_in_process(instance=instance, run_config=config).success
        assert observed(library)["deleted"] == 200
        with pytest.raises(dg.Failure, match="nothing to confirm"):
            job.execute_in_process(instance=instance, run_config=config)
