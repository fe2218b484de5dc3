"""What does it cost to find out that nothing changed? An idle pass over 100,000 keys of an S3 server ÷ the listing alone."""

import http.client
import json
import multiprocessing
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from mixpeek_dagster.models.ids import SyncId
from mixpeek_dagster.models.syncs import Sync
from mixpeek_dagster.pipeline.syncs import advance
from mixpeek_dagster.pipeline.warehouse import Warehouse
from tests.benchmarks.measure import Figure, at_most, seen
from tests.benchmarks.process import cpu_s, peak_mb
from tests.end_to_end.home import ROOT, Home
from tests.servers import S3Server, running_seaweedfs, s3_client

KEYS = 100_000
BUCKET = "many"


def measure() -> Sequence[Figure]:
    with tempfile.TemporaryDirectory(prefix="mixpeek-bench-") as folder:
        (Path(folder) / "weed").mkdir()
        with running_seaweedfs(Path(folder) / "weed") as server:
            _fill(server)
            home = Home(Path(folder) / "home")
            home.env["MIXPEEK_ALLOWED_HOSTS"] = "127.0.0.1"
            home.apply(_manifest(server))
            first, listing, idle = (_child(home, what) for what in ("pass", "listing", "pass"))
    return [
        seen("first pass, CPU", first["cpu"], "s"),
        seen("listing alone, CPU", listing["cpu"], "s"),
        seen("idle pass, CPU", idle["cpu"], "s"),
        at_most("idle pass ÷ listing alone, CPU", idle["cpu"] / listing["cpu"], "", 1.5),
        at_most("idle pass, changes found", idle["changes"], "keys", 0),
        at_most("idle pass, largest memory", idle["peak_mb"], "MB", 100.0),
    ]


def _fill(server: S3Server) -> None:
    s3_client(server).create_bucket(Bucket=BUCKET)
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        pool.starmap(_put, [(server.filer, range(start, KEYS, 4)) for start in range(4)])


def _put(filer: str, numbers: Iterable[int]) -> None:
    connection = http.client.HTTPConnection(filer)
    for number in numbers:
        connection.request("PUT", f"/buckets/{BUCKET}/texts/{number:07d}.txt", body=b"")
        answer = connection.getresponse()
        answer.read()
        assert answer.status == http.HTTPStatus.CREATED, answer.status


def _manifest(server: S3Server) -> dict[str, object]:
    credentials = {"access_key_id": server.access_key_id, "secret_access_key": server.secret_access_key}
    sync = {
        "provider": "s3",
        "connection": {"bucket_name": BUCKET, "region": server.region, "endpoint_url": server.url, "credentials": credentials},
        "sync_config": {"source_path": "/texts/"},
    }
    schema = {"properties": {"content": {"type": "text"}}}
    return {"namespace": "bench", "buckets": {"files": {"schema": schema, "syncs": {"s3": sync}}}}


def _child(home: Home, what: str) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.listing", what]
    done = subprocess.run(command, env=home.env, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-3000:])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def run(what: str) -> dict[str, float]:
    """In a process of its own: list every page, or make a pass. CPU from after the imports, memory of the whole process."""
    warehouse = Warehouse.from_env()
    with warehouse.catalog.reading() as records:
        (sync,) = records.syncs.all()
    source = warehouse.source(sync)
    source.head(b"texts/0000000.txt")  # open the connection
    before, changes = cpu_s(), 0
    if what == "listing":
        _list(warehouse, sync)
    else:
        while (progress := advance(warehouse, SyncId(sync.sync_id), budget_s=3600, force=True)) and not progress.finished:
            pass
        assert progress is not None
        assert progress.error is None, progress.error
        assert progress.counters.listed == KEYS, progress
        changes = progress.counters.new + progress.counters.changed + progress.counters.deleted
    return {"cpu": cpu_s() - before, "peak_mb": peak_mb(), "changes": changes}


def _list(warehouse: Warehouse, sync: Sync) -> None:
    source, token, after, count = warehouse.source(sync), None, None, 0
    while True:
        page = source.list_page(after=after, token=token)
        count += len(page.entries)
        if page.token is None:
            break
        token, after = page.token, page.entries[-1].key
    assert count == KEYS, count


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1])))
