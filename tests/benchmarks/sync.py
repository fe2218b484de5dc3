"""What does it cost to follow a million keys? First and idle passes ÷ the raw lister and boto3's paginator; downloads ÷ boto3's.

The listings come from a server of canned pages in a process of its own. Short figures are the best of some runs, each in a
fresh process; CPU counts from after the imports, memory is that of the whole process.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.canned_s3 import BODY_BYTES
from tests.benchmarks.measure import Figure, at_least, at_most, seen
from tests.benchmarks.sync_costs import KEYS, connection
from tests.end_to_end.home import ROOT, Home

Measured = dict[str, float]


def measure() -> Sequence[Figure]:
    with tempfile.TemporaryDirectory(prefix="mixpeek-bench-") as folder, _canned_server() as url:
        home = Home(Path(folder))
        home.env |= {"MIXPEEK_ALLOWED_HOSTS": "127.0.0.1", "MIXPEEK_BENCH_KEYS": str(KEYS)}
        home.apply(_manifest(url))
        base = _best(home, "start", url)
        raw, boto3 = _best(home, "raw", url), _child(home, "boto3", url)
        first, idle = _child(home, "pass", url), _best(home, "pass", url)
        ours, theirs = _best(home, "download", url, runs=4), _best(home, "download_boto3", url, runs=4)
    millions = KEYS / 1e6
    size_mb = BODY_BYTES / 1e6
    return [
        seen("keys", KEYS, "keys"),
        seen("boto3's paginator, CPU", boto3["cpu"], "s"),
        seen("raw lister, CPU", raw["cpu"], "s"),
        at_most("raw lister, CPU for a million keys", raw["cpu"] / millions, "s", 10.0),
        seen("first pass, CPU", first["cpu"], "s"),
        seen("first pass, wall", first["wall"], "s"),
        at_least("first pass, new files found", first["changes"], "files", KEYS),
        seen("idle pass, CPU", idle["cpu"], "s"),
        seen("idle pass, wall", idle["wall"], "s"),
        at_most("idle pass, CPU for a million keys", idle["cpu"] / millions, "s", 10.0),
        at_most("idle pass ÷ raw lister, CPU", idle["cpu"] / raw["cpu"], "", 1.5),
        at_most("idle pass, changes found", idle["changes"], "files", 0),
        seen("memory after the imports", base["peak_mb"], "MB"),
        seen("boto3's paginator, largest memory", boto3["peak_mb"], "MB"),
        seen("raw lister, largest memory", raw["peak_mb"], "MB"),
        at_most("first pass, largest memory", first["peak_mb"], "MB", 80.0),
        at_most("idle pass, largest memory", idle["peak_mb"], "MB", 80.0),
        seen("download", size_mb / ours["wall"], "MB/s"),
        seen("download by boto3", size_mb / theirs["wall"], "MB/s"),
        at_least("download ÷ boto3's", theirs["wall"] / ours["wall"], "", 0.9),
        seen("download, CPU ÷ boto3's", ours["cpu"] / theirs["cpu"], ""),
    ]


@contextmanager
def _canned_server() -> Iterator[str]:
    command = [sys.executable, "-m", "tests.benchmarks.canned_s3", str(KEYS)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def _manifest(url: str) -> dict[str, object]:
    config = {"source_path": "/library/", "max_objects_per_run": 10 * KEYS}
    sync = {"provider": "s3", "connection": connection(url), "sync_config": config}
    schema = {"properties": {"content": {"type": "text"}}}
    return {"namespace": "bench", "buckets": {"files": {"schema": schema, "syncs": {"s3": sync}}}}


def _best(home: Home, what: str, url: str, *, runs: int = 2) -> Measured:
    """The least of each figure in some runs: what disturbs a run can only add to it."""
    found = [_child(home, what, url) for _ in range(runs)]
    return {name: min(one[name] for one in found) for name in found[0]}


def _child(home: Home, what: str, url: str) -> Measured:
    command = [sys.executable, "-m", "tests.benchmarks.sync_costs", what, url]
    done = subprocess.run(command, env=home.env, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-3000:])
    found: Measured = json.loads(done.stdout.splitlines()[-1])
    return found
