"""What does the system itself cost? 5,000 small text files with an extractor that costs nothing, every phase in a fresh process."""

import os
import random
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from mixpeek_dagster.pipeline.reading import LARGEST
from tests.benchmarks.measure import Figure, at_most, cost_of, seen
from tests.end_to_end.home import Home

FILES = 5_000
ONE_PERCENT = FILES // 100


def measure() -> Sequence[Figure]:
    with tempfile.TemporaryDirectory(prefix="mixpeek-bench-") as folder:
        home = Home(Path(folder) / "a")
        home.write_texts(FILES)
        home.stub_library()
        files = sorted(file for file in home.files.rglob("*.txt"))
        rng = random.Random(3)
        first = cost_of(home, "run", "--now", "--quiet")
        same = cost_of(home, "run", "--now", "--quiet")
        for file in rng.sample(files, ONE_PERCENT):
            file.write_text(file.read_text() + " Changed.")
        changed = cost_of(home, "run", "--now", "--quiet")
        changed_inferred = _inferred(home)
        for file in files[:ONE_PERCENT]:
            file.unlink()
        deleted = cost_of(home, "run", "--now", "--quiet")
        for file in files[-ONE_PERCENT:]:
            file.rename(file.with_name("renamed-" + file.name))
        renamed = cost_of(home, "run", "--now", "--quiet")
        cost_of(home, "verify")  # raises unless nothing is missing, extra, stale or duplicate
        again, lost = _killed_at_half(Path(folder) / "b")
    peaks = [one.peak_mb for one in (first, same, changed, deleted, renamed)]
    return [
        at_most("first run", first.wall_s, "s", 8.0),
        seen("first run, CPU", first.cpu_s, "s"),
        at_most("nothing changed", same.wall_s, "s", 4.0),
        seen("nothing changed, CPU", same.cpu_s, "s"),
        at_most("1 % changed", changed.wall_s, "s", 4.5),
        at_most("1 % changed, inferred", changed_inferred, "objects", ONE_PERCENT),
        seen("1 % deleted", deleted.wall_s, "s"),
        seen("1 % renamed", renamed.wall_s, "s"),
        at_most("1 % renamed, inferred", _inferred(home_output=renamed.output), "objects", 0),
        at_most("largest memory", max(peaks), "MB", 350.0),
        at_most("killed at half: inferred twice (a window at most)", again, "files", LARGEST),
        at_most("killed at half: files without their document", lost, "files", 0),
    ]


def _inferred(home: Home | None = None, *, home_output: str | None = None) -> int:
    """Inputs that the last batches inferred, from the summary of a run or from the catalog's newest batch."""
    if home_output is not None:
        return 0 if "nothing was inferred" in home_output else int(home_output.split(" inputs inferred")[0].rsplit(" ", 1)[-1])
    assert home is not None
    with home.warehouse.catalog.reading() as records:
        newest = records.batches.page(limit=1)[0][0]
        return sum(step.inferred for step in records.batches.steps(newest.batch_id))


def _killed_at_half(folder: Path) -> tuple[int, int]:
    """(files inferred twice, files without their one document) after a kill -9 at half of the work and one more run."""
    home = Home(folder)
    home.write_texts(FILES)
    trace = folder / "inferred"
    home.stub_library(sleep_s=0.001, trace=str(trace))
    process = home.start("run", "--now", "--quiet")
    while _done(home) < FILES // 2 and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    cost_of(home, "run", "--now", "--quiet")
    inferred = sum(int(line) for line in trace.read_text().splitlines())
    return inferred - FILES, abs(FILES - _documents(home))


def _done(home: Home) -> int:
    with home.warehouse.catalog.reading() as records:
        batches = records.batches.page(limit=100)[0]
        return sum(step.inputs for batch in batches for step in records.batches.steps(batch.batch_id))


def _documents(home: Home) -> int:
    with home.warehouse.catalog.reading() as records:
        (collection,) = records.collections.all()
        found = records.documents.scan(collection.collection_id, limit=10 * FILES)
    return len({document.root_object_id for document in found}) if len(found) == FILES else len(found)
