"""Which runs are told to end when batches are canceled."""

from types import SimpleNamespace
from typing import Any, cast

import dagster as dg
import pytest

from mixpeek_dagster.definitions.stopping import stop_canceled
from mixpeek_dagster.models.batches import Batch
from mixpeek_dagster.pipeline.batches import cancel
from tests.pipeline.worlds import NOW, Library

RUN = "run-1"


class Dagster:
    """An instance with one run, asked for under the key `shared`, or with none."""

    def __init__(self, status: dg.DagsterRunStatus | None = dg.DagsterRunStatus.STARTED) -> None:
        self.status = status
        self.told: list[str] = []
        self.asked = 0
        self.run_coordinator = SimpleNamespace(cancel_run=self._cancel)

    def _cancel(self, run_id: str) -> bool:
        self.told.append(run_id)
        self.status = dg.DagsterRunStatus.CANCELING
        return True

    def get_run_by_id(self, run_id: str) -> Any:
        return None

    def get_runs(self, filters: dg.RunsFilter, limit: int) -> list[Any]:
        self.asked += 1
        finished = self.status in (dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.SUCCESS)
        return [SimpleNamespace(run_id=RUN, status=self.status, is_finished=finished)] if self.status else []


@pytest.fixture
def riders(library: Library) -> list[Batch]:
    """Two batches whose parts were handed to one run."""
    batches = [library.submit(library.add_objects({name: name})) for name in ("a", "b")]
    claims = library.claim()
    with library.warehouse.catalog.transaction() as records:
        records.batches.set_run_key([one.part for one in claims], "shared")
    return batches


def stop(library: Library, dagster: Dagster) -> int:
    return stop_canceled(library.warehouse, cast(dg.DagsterInstance, dagster))


def cancel_batch(library: Library, batch: Batch) -> None:
    with library.warehouse.catalog.transaction() as records:
        cancel(records, batch.batch_id, now=NOW)


def test_a_run_ends_when_all_it_works_for_was_canceled(library: Library, riders: list[Batch]) -> None:
    dagster = Dagster()
    assert stop(library, dagster) == 0
    cancel_batch(library, riders[0])
    assert stop(library, dagster) == 0, "the other batch still rides along"
    cancel_batch(library, riders[1])
    assert stop(library, dagster) == 1
    assert stop(library, dagster) == 0, "it is on its way to its end"
    assert dagster.told == [RUN]
    dagster.status = dg.DagsterRunStatus.CANCELED
    stop(library, dagster)
    before = dagster.asked
    stop(library, dagster)
    assert dagster.asked == before, "nothing is left to look at"


def test_a_run_that_does_not_exist_yet_is_waited_for(library: Library, riders: list[Batch]) -> None:
    dagster = Dagster(status=None)
    for batch in riders:
        cancel_batch(library, batch)
    stop(library, dagster)
    dagster.status = dg.DagsterRunStatus.QUEUED
    assert stop(library, dagster) == 1
    late = Dagster(status=None)
    library.clock.move(61)
    stop(library, late)
    stop(library, late)
    assert late.asked == 1, "it never came"
