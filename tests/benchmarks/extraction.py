"""How much of the model's own speed reaches the documents? End to end inside a Dagster run ÷ the model alone on packed batches."""

import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

from mixpeek_dagster.cli.dagster_home import prepare_dagster_home
from mixpeek_dagster.cli.passes import pass_once
from mixpeek_dagster.extractors.engine import plan, prepare
from mixpeek_dagster.extractors.extractor import Content
from mixpeek_dagster.pipeline.warehouse import Warehouse
from tests.benchmarks.measure import Figure, at_least, cpu_s, seen
from tests.end_to_end.home import ROOT, Home

OBJECTS = 1_000
LIBRARY = ROOT / "examples" / "library"


def measure() -> Sequence[Figure]:
    figures: list[Figure] = []
    for kind in ("text", "image"):
        with tempfile.TemporaryDirectory(prefix="mixpeek-bench-") as folder:
            home = Home(Path(folder))
            write = _write_texts if kind == "text" else _write_images
            write(home.files)
            home.apply(_manifest(home, kind))
            done = subprocess.run(
                [sys.executable, "-m", "tests.benchmarks.extraction", kind, str(home.files)],
                env=home.env, cwd=ROOT, capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode != 0:
                raise RuntimeError(done.stderr[-3000:])
            r: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        unit = "documents/s" if kind == "text" else "images/s"
        figures += [
            seen(f"{kind}: end to end", r["objects"] / r["wall"], unit),
            seen(f"{kind}: session.run alone", r["objects"] / r["raw_wall"], unit),
            at_least(f"{kind}: end to end ÷ session.run", r["raw_wall"] / r["wall"], "", 0.90),
            seen(f"{kind}: the same in CPU seconds", r["raw_cpu"] / r["cpu"], ""),
            seen(f"{kind}: end to end ÷ (reading the files + session.run)", (r["raw_wall"] + r["prepare_wall"]) / r["wall"], ""),
        ]
    return figures


def _manifest(home: Home, kind: str) -> dict[str, Any]:
    return {
        "namespace": "bench",
        "buckets": {
            "files": {
                "schema": {"properties": {"content": {"type": kind}}},
                "syncs": {"disk": {"provider": "local", "sync_config": {"source_path": str(home.files)}}},
            }
        },
        "collections": {
            "documents": {
                "source": {"type": "bucket", "bucket_ids": ["files"]},
                "feature_extractor": {"feature_extractor_name": f"{kind}_extractor", "version": "v1"},
            }
        },
    }


def _write_texts(folder: Path) -> None:
    """Pieces of the example texts, 80 to 1,000 characters: one document each."""
    words = " ".join(file.read_text() for file in sorted((LIBRARY / "texts").rglob("*.txt"))).split()
    at = 0
    for number in range(OBJECTS):
        size = 15 + (number * 7919) % 150
        (folder / f"{number:04d}.txt").write_text(" ".join(words[at : at + size]))
        at = (at + size) % (len(words) - 200)


def _write_images(folder: Path) -> None:
    """Different cut-outs of the example photographs, 480 × 360 JPEG."""
    photos = [Image.open(file).convert("RGB") for file in sorted((LIBRARY / "images" / "photos").glob("*.jpg"))]
    for number in range(OBJECTS):
        photo = photos[number % len(photos)]
        left, top = (number * 31) % max(1, photo.width // 3), (number * 17) % max(1, photo.height // 3)
        cut = photo.crop((left, top, left + photo.width * 2 // 3, top + photo.height * 2 // 3)).resize((480, 360))
        data = io.BytesIO()
        cut.save(data, "JPEG", quality=85)
        (folder / f"{number:04d}.jpg").write_bytes(data.getvalue())


def run(kind: str, files: Path) -> dict[str, float]:
    """In a process of its own: one pass of ours, then the model alone on the same inputs, with the same threads."""
    warehouse = Warehouse.from_env()
    prepare_dagster_home(warehouse.settings)
    before = cpu_s()
    pass_once(warehouse, quiet=True)
    cpu = cpu_s() - before
    with warehouse.catalog.reading() as records:
        (batch,) = records.batches.page()[0]
        (step,) = records.batches.steps(batch.batch_id)
        (collection,) = records.collections.all()
    assert (step.inputs, step.failed) == (OBJECTS, 0), step
    extractor = warehouse.extractor(collection.feature_extractor)
    threads = warehouse.settings.threads
    inputs = [{kind: Content(data=file.read_bytes(), filename=file.name)} for file in sorted(files.iterdir())]
    started = time.perf_counter()
    prepared = prepare(extractor, inputs, threads=threads)
    prepare_wall = time.perf_counter() - started
    calls = plan(extractor, [unit for units in prepared if isinstance(units, list) for unit in units])
    tower = extractor.towers["embedding"]  # type: ignore[attr-defined]
    feeds = [tower.feed(call.payloads) for call in calls]
    started, before = time.perf_counter(), cpu_s()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda feed: tower.model.session.run([tower.tower.output], feed), feeds))
    raw_wall, raw_cpu = time.perf_counter() - started, cpu_s() - before
    return {
        "objects": step.documents, "wall": step.seconds, "cpu": cpu, "raw_wall": raw_wall, "raw_cpu": raw_cpu, "prepare_wall": prepare_wall,
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], Path(sys.argv[2]))))
