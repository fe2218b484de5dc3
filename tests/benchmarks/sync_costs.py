"""One figure of `sync`, in a process of its own that imports only what it measures: `python -m tests.benchmarks.sync_costs WHAT URL`."""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.benchmarks.canned_s3 import BODY_BYTES, BUCKET, key_of
from tests.benchmarks.process import cpu_s, peak_mb

CHUNK = 1024 * 1024
KEYS = int(os.environ.get("MIXPEEK_BENCH_KEYS") or 1_000_000)
Work = Callable[[], int]


def connection(url: str) -> dict[str, Any]:
    """A connection to the canned server."""
    credentials = {"access_key_id": "AKIACANNED", "secret_access_key": "canned"}
    return {"bucket_name": BUCKET, "region": "us-east-1", "endpoint_url": url, "credentials": credentials}


def run(what: str, url: str) -> dict[str, float]:
    """CPU and wall seconds from after the imports, the whole process's largest memory, and the changes that were found."""
    work = _boto3(what, url) if what.endswith("boto3") else _ours(what)
    before, started = cpu_s(), time.perf_counter()
    changes = work()
    wall, cpu = time.perf_counter() - started, cpu_s() - before
    return {"cpu": cpu, "wall": wall, "changes": changes, "peak_mb": peak_mb()}


def _ours(what: str) -> Work:
    from mixpeek_dagster.pipeline.syncs import advance
    from mixpeek_dagster.pipeline.warehouse import Warehouse

    warehouse = Warehouse.from_env()
    with warehouse.catalog.reading() as records:
        (sync,) = records.syncs.all()
    source = warehouse.source(sync)
    source.head(key_of(0).encode())  # open the connection

    def list_all() -> int:
        token, after, count = None, None, 0
        while True:
            page = source.list_page(after=after, token=token)
            count += len(page.entries)
            if page.token is None:
                break
            token, after = page.token, page.entries[-1].key
        assert count == KEYS, count
        return 0

    def follow() -> int:
        while (progress := advance(warehouse, sync.sync_id, budget_s=20, force=True)) and not progress.finished:
            assert progress.error is None, progress.error
        assert progress is not None
        assert progress.counters.listed == KEYS, progress
        return progress.counters.new + progress.counters.changed + progress.counters.deleted

    def download() -> int:
        with source.open(b"library/large.bin") as stream:
            size = sum(len(chunk) for chunk in iter(lambda: stream.read(CHUNK), b""))
        assert size == BODY_BYTES
        return 0

    return {"start": lambda: 0, "raw": list_all, "pass": follow, "download": download}[what]


def _boto3(what: str, url: str) -> Work:
    import boto3

    credentials = connection(url)["credentials"]
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
