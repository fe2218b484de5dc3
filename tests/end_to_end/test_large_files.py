"""Large files wait on disk, not in memory."""

from pathlib import Path

from tests.end_to_end.home import STUB, Home

MB = 1024**2
SIZE = 40 * MB
RUNS = """
from mixpeek_dagster.definitions.one_pass import run_once
from mixpeek_dagster.pipeline.warehouse import Warehouse
from tests.benchmarks.process import peak_mb

report = run_once(Warehouse.from_env(), now=True)
assert report.ok, report.batches
print(sum(one.documents_written for one in report.batches), peak_mb())
"""


def peak_of(home: Home, files: int) -> float:
    """Most MB of a process that made documents of so many files of 40 MB."""
    for number in range(files):
        with (home.files / f"{number}.bin").open("wb") as file:
            file.write(b"%d" % number)
            file.truncate(SIZE)  # holes: they cost no disk until they are copied
    source = {"provider": "local", "sync_config": {"source_path": str(home.files)}}
    schema = {"properties": {"content": {"type": "binary"}}}
    extractor = {"feature_extractor_name": STUB, "version": "v1", "input_mappings": {"data": "content"}}
    home.apply(
        {
            "namespace": "large",
            "buckets": {"files": {"schema": schema, "syncs": {"disk": source}}},
            "collections": {"stub": {"source": {"type": "bucket", "bucket_ids": ["files"]}, "feature_extractor": extractor}},
        }
    )
    documents, peak = home.python(RUNS, MIXPEEK_THREADS="1").split()[-2:]
    assert int(documents) == files
    return float(peak)


def test_the_memory_of_large_files_does_not_grow_with_their_number(tmp_path: Path) -> None:
    one, twenty = (peak_of(Home(tmp_path / str(files)), files) for files in (1, 20))
    print(f"one file of 40 MB: {one:.0f} MB at most; twenty: {twenty:.0f} MB")
    assert twenty - one < 40
