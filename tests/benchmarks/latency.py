"""How long from submit to COMPLETED with `make dev` running? And what does it cost to wait?"""

import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import psutil

from mixpeek_dagster.models.batches import Batch
from mixpeek_dagster.pipeline.batches import create_batch, submit
from tests.benchmarks.measure import Figure, at_most, seen
from tests.end_to_end.dev import Dev, running_dev
from tests.end_to_end.home import Home

ROUNDS = 10
BURST = 100
IDLE_S = 30.0
SETTLE_S = 45.0  # first ticks and first loads are no idling


def measure() -> Sequence[Figure]:
    rng = random.Random(5)
    with tempfile.TemporaryDirectory(prefix="mixpeek-bench-") as folder:
        home = Home(Path(folder))
        home.write_texts(BURST)
        home.stub_library()
        home.command("run", "--now", "--quiet")
        with running_dev(home) as dev:
            time.sleep(SETTLE_S)
            idle = _idle_cpu(dev)
            single = []
            for number in range(ROUNDS):
                time.sleep(rng.uniform(2.0, 9.0))  # people do not submit in step with the daemon's five seconds
                single += _rounds(home, 1, skip=number)
            burst = _rounds(home, BURST)
    median = {name: statistics.median(one[name] for one in single) for name in single[0]}
    return [
        at_most("submit → COMPLETED, median of 10", median["all"], "s", 4.0),
        seen("  submitted → claimed by the sensor", median["claimed"], "s"),
        seen("  claimed → its run begins (queue, new process, imports)", median["started"], "s"),
        seen("  begun → COMPLETED", median["completed"], "s"),
        seen("submit → COMPLETED, slowest of 10", max(one["all"] for one in single), "s"),
        at_most("100 batches at once → the last COMPLETED", max(one["all"] for one in burst), "s", 30.0),
        at_most("idle CPU of everything `make dev` starts", idle, "% of a core", 15.0),
    ]


def _rounds(home: Home, count: int, *, skip: int = 0) -> list[dict[str, float]]:
    """Submit `count` batches of one object each; for each the seconds of every leg."""
    warehouse = home.warehouse
    batches: list[Batch] = []
    for number in range(count):
        with warehouse.catalog.transaction() as records:
            (bucket,) = records.buckets.all()
            objects = records.objects.ids_in_bucket(bucket.bucket_id)[skip + number : skip + number + 1]
            batch = create_batch(
                records, objects, namespace_id=bucket.namespace_id, bucket_id=bucket.bucket_id, now=warehouse.now(), dedup="force"
            )
            batches.append(submit(records, batch, settings=warehouse.settings, now=warehouse.now()))
    deadline = time.monotonic() + 180
    ended: dict[str, Batch] = {}
    while len(ended) < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{count - len(ended)} of {count} batches have not ended after 180 s")
        time.sleep(0.05)
        with warehouse.catalog.reading() as records:
            now = [records.batches.get(batch.batch_id) for batch in batches if batch.batch_id not in ended]
        ended |= {batch.batch_id: batch for batch in now if batch.status.is_terminal}
    legs = []
    with warehouse.catalog.reading() as records:
        for batch in ended.values():
            (part,) = records.batches.parts(batch.batch_id)
            marks = [batch.submitted_at, part.claimed_at, batch.started_at, batch.completed_at]
            at = [datetime.fromisoformat(mark or "").timestamp() for mark in marks]
            legs.append({"claimed": at[1] - at[0], "started": at[2] - at[1], "completed": at[3] - at[2], "all": at[3] - at[0]})
    return legs


def _idle_cpu(dev: Dev) -> float:
    """CPU of the webserver, the daemon and the code servers while nothing is asked of them, in percent of one core."""
    family = [psutil.Process(dev.process.pid), *psutil.Process(dev.process.pid).children(recursive=True)]
    before = sum(_cpu(process) for process in family)
    time.sleep(IDLE_S)
    return 100 * (sum(_cpu(process) for process in family) - before) / IDLE_S


def _cpu(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)
