"""How soon does what a person asks for through the API begin, end, or appear in a running Dagster?"""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from tests.benchmarks.measure import Figure, at_most
from tests.end_to_end.home import Home
from tests.end_to_end.prompt import Desk, running_desk, seconds_until

ROUNDS = 5


def measure() -> Sequence[Figure]:
    with tempfile.TemporaryDirectory(prefix="mixpeek-bench-") as folder, running_desk(Home(Path(folder))) as desk:
        return [*_shown(desk), *_begun(desk)]


def _shown(desk: Desk) -> list[Figure]:
    return [
        _median("bucket and collection made → shown", lambda n: desk.made_until_shown(f"shelf-{n}"), 15.0),
        _median("bucket changed → shown", lambda n: desk.changed_until_shown("shelf-0", f"changed {n} times"), 15.0),
        _median("bucket deleted → gone", lambda n: desk.deleted_until_gone(f"shelf-{n + 1}"), 15.0, rounds=ROUNDS - 1),
    ]


def _begun(desk: Desk) -> list[Figure]:
    bucket_id = desk.bucket("desk")
    desk.collection(bucket_id, "quick")
    syncs = [desk.sync(bucket_id) for _ in range(ROUNDS)]
    begun = [
        _median("sync triggered → its pass began", lambda n: desk.triggered_until_begun(bucket_id, syncs[n]), 10.0),
        _median("batch submitted → it left QUEUED", lambda n: desk.submitted_until_taken(bucket_id, f"text {n}"), 5.0),
    ]
    slow_id = desk.bucket("slow")
    desk.collection(slow_id, "slow", sleep_s=3.0)
    seconds_until(lambda: "collections/slow" in desk.assets())
    texts = [[f"{n} {one}" for one in range(200)] for n in range(ROUNDS)]
    ended = _median("batch canceled → its run is CANCELED", lambda n: desk.canceled_until_ended(slow_id, *texts[n]), 10.0)
    return [*begun, ended]


def _median(what: str, wait: Callable[[int], float], goal_s: float, *, rounds: int = ROUNDS) -> Figure:
    took = []
    for number in range(rounds):
        time.sleep(1.3)  # people do not ask in step with the daemon's seconds
        took.append(wait(number))
    return at_most(f"{what}, median of {rounds}", median(took), "s", goal_s)
