"""kill -9 in the middle of a batch: nothing is lost, nothing is made twice, and the work that was recorded is not done again."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from mixpeek_dagster.models.batches import BatchStatus, PartStatus
from mixpeek_dagster.pipeline.reading import LARGEST
from tests.end_to_end.home import Home

OBJECTS = 1_000
KILLS = 10


def inputs_done(home: Home) -> int:
    with home.warehouse.catalog.reading() as records:
        batches, _ = records.batches.page()
        return sum(step.inputs for batch in batches for step in records.batches.steps(batch.batch_id))


def is_running(home: Home, *, attempt: int) -> bool:
    with home.warehouse.catalog.reading() as records:
        batches, _ = records.batches.page()
        parts = [part for batch in batches for part in records.batches.parts(batch.batch_id)]
    return any(part.status is PartStatus.RUNNING and part.attempt == attempt for part in parts)


@pytest.mark.timeout(400)
def test_a_batch_survives_ten_kills_at_random_moments(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.write_texts(OBJECTS)
    home.stub_library(sleep_s=0.02)
    rng = random.Random(20)
    for kill in range(1, KILLS + 1):
        process = home.start("run", "--now")
        while process.poll() is None and not is_running(home, attempt=kill):
            time.sleep(0.02)
        time.sleep(rng.uniform(0.0, 1.5))
        assert process.poll() is None, "the batch ended before it could be killed: make it slower"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert 0 < inputs_done(home) < OBJECTS

    home.command("run", "--now")

    with home.warehouse.catalog.reading() as records:
        (batch,), total = records.batches.page()
        steps = records.batches.steps(batch.batch_id)
        (part,) = records.batches.parts(batch.batch_id)
        (collection,) = records.collections.all()
        documents = records.documents.scan(collection.collection_id, limit=10 * OBJECTS)
    assert total == 1
    assert batch.status is BatchStatus.COMPLETED
    assert part.attempt == KILLS + 1
    assert len(documents) == len({document.root_object_id for document in documents}) == OBJECTS
    assert collection.document_count == OBJECTS
    assert sum(step.inferred + step.reused for step in steps) == OBJECTS
    assert home.command("verify").returncode == 0
    quiet = home.command("run", "--now").stdout
    assert "0 new, 0 changed, 0 deleted" in quiet
    assert "nothing was inferred" in quiet


@pytest.mark.timeout(200)
def test_a_run_killed_at_half_infers_at_most_the_window_in_flight_again(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.write_texts(OBJECTS)
    home.stub_library(sleep_s=0.005)
    process = home.start("run", "--now")
    while inputs_done(home) < OBJECTS // 3:
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = inputs_done(home)
    assert before < OBJECTS

    out = home.command("run", "--now").stdout

    with home.warehouse.catalog.reading() as records:
        (batch,), _ = records.batches.page()
        (step,) = records.batches.steps(batch.batch_id)
    assert step.inferred == OBJECTS, out
    assert step.inputs - before <= OBJECTS - before
    assert OBJECTS - before <= LARGEST or before > 0
