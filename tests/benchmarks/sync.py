"""What does it cost to follow a million keys? First and idle passes ÷ the raw lister and boto3's paginator; downloads ÷ boto3's.

The listings come from a server of canned pages in a process of its own. Every figure is the best of two runs, each in a fresh
process; CPU counts from after the imports, memory is that of the whole process.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mixpeek_dagster.models.ids import SyncId
from mixpeek_dagster.pipeline.syncs import advance
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.storage.provider import ObjectSource
from tests.benchmarks.canned_s3 import BODY_BYTES, BUCKET, key_of
from tests.benchmarks.measure import Figure, at_least, at_most, cpu_s, seen
from tests.end_to_end.home import ROOT, Home

KEYS = int(os.environ.get("MIXPEEK_BENCH_KEYS") or 1_000_000)
CHUNK = 1024 * 1024
Measured = dict[str, float]


def measure() -> Sequence[Figure]:
    with tempfile.TemporaryDirectory(prefix="mixpeek-bench-") as folder, _canned_server() as url:
        home = Home(Path(folder))
        home.env |= {"MIXPEEK_ALLOWED_HOSTS": "127.0.0.1", "MIXPEEK_BENCH_KEYS": str(KEYS)}
        home.apply(_manifest(url))
        base = _best(home, "start", url)
        raw, boto3 = _best(home, "raw", url), _best(home, "boto3", url)
        first, idle = _child(home, "pass", url), _best(home, "pass", url)
        ours, theirs = _best(home, "download", url), _best(home, "download_boto3", url)
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
    sync = {"provider": "s3", "connection": _connection(url), "sync_config": {"source_path": "/library/"}}
    schema = {"properties": {"content": {"type": "text"}}}
    return {"namespace": "bench", "buckets": {"files": {"schema": schema, "syncs": {"s3": sync}}}}


def _connection(url: str) -> dict[str, Any]:
    credentials = {"access_key_id": "AKIACANNED", "secret_access_key": "canned"}
    return {"bucket_name": BUCKET, "region": "us-east-1", "endpoint_url": url, "credentials": credentials}


def _best(home: Home, what: str, url: str) -> Measured:
    """The cheaper of two runs: what disturbs a run can only add to it."""
    return min((_child(home, what, url) for _ in range(2)), key=lambda one: one["cpu"])


def _child(home: Home, what: str, url: str) -> Measured:
    command = [sys.executable, "-m", "tests.benchmarks.sync", what, url]
    done = subprocess.run(command, env=home.env, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-3000:])
    found: Measured = json.loads(done.stdout.splitlines()[-1])
    return found


def run(what: str, url: str) -> Measured:
    """One figure, in a process of its own."""
    import resource

    if what.endswith("boto3"):
        work = _boto3_work(what, url)
    else:
        work = _our_work(what)
    before, started = cpu_s(), time.perf_counter()
    changes = work()
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"cpu": cpu_s() - before, "wall": time.perf_counter() - started, "peak_mb": peak_mb, "changes": changes}


def _our_work(what: str) -> Any:
    warehouse = Warehouse.from_env()
    with warehouse.catalog.reading() as records:
        (sync,) = records.syncs.all()
    source = warehouse.source(sync)
    source.head(key_of(0).encode())  # open the connection
    works = {
        "start": lambda: 0,
        "raw": lambda: _list(source),
        "pass": lambda: _pass(warehouse, sync.sync_id),
        "download": lambda: _download(source),
    }
    return works[what]


def _list(source: ObjectSource) -> int:
    token, after, count = None, None, 0
    while True:
        page = source.list_page(after=after, token=token)
        count += len(page.entries)
        if page.token is None:
            break
        token, after = page.token, page.entries[-1].key
    assert count == KEYS, count
    return 0


def _pass(warehouse: Warehouse, sync_id: SyncId) -> int:
    while (progress := advance(warehouse, sync_id, budget_s=20, force=True)) and not progress.finished:
        assert progress.error is None, progress.error
    assert progress is not None
    assert progress.counters.listed == KEYS, progress
    return progress.counters.new + progress.counters.changed + progress.counters.deleted


def _download(source: ObjectSource) -> int:
    with source.open(b"library/large.bin") as stream:
        size = sum(len(chunk) for chunk in iter(lambda: stream.read(CHUNK), b""))
    assert size == BODY_BYTES
    return 0


def _boto3_work(what: str, url: str) -> Any:
    import boto3

    credentials = _connection(url)["credentials"]
    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=credentials["access_key_id"],
        aws_secret_access_key=credentials["secret_access_key"],
    )
    client.head_object(Bucket=BUCKET, Key=key_of(0))

    def paginate() -> int:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="library/")
        assert sum(len(page["Contents"]) for page in pages) == KEYS
        return 0

    def download() -> int:
        body = client.get_object(Bucket=BUCKET, Key="library/large.bin")["Body"]
        assert sum(len(chunk) for chunk in body.iter_chunks(CHUNK)) == BODY_BYTES
        return 0

    return paginate if what == "boto3" else download


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], sys.argv[2])))
