"""How much of the model's own speed reaches the documents? End to end inside a Dagster run ÷ the model alone on packed batches.

Files have to be decoded by the same cores. What that leaves of the model's speed, if nothing else cost anything, is printed too.
"""

import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from PIL import Image

from mixpeek_dagster.extractors.engine import plan, prepare
from mixpeek_dagster.extractors.extractor import Content
from mixpeek_dagster.pipeline.warehouse import Warehouse
from tests.benchmarks.measure import Figure, at_least, seen
from tests.end_to_end.home import ROOT, Home

OBJECTS = 1_000
ROUNDS = 3
LIBRARY = ROOT / "examples" / "library"


def measure() -> Sequence[Figure]:
    figures: list[Figure] = []
    for kind in ("text", "image"):
        # The machine's speed drifts by a third within minutes: each pass is compared with the model alone just before it.
        rounds = [_round(kind) for _ in range(ROUNDS)]
        seconds = {name: median(one[name] for one in rounds) for name in rounds[0]}
        unit = "documents/s" if kind == "text" else "images/s"
        figures += [
            seen(f"{kind}: end to end", seconds["documents"] / seconds["wall"], unit),
            seen(f"{kind}: session.run, one call after another", seconds["documents"] / seconds["plain"], unit),
            seen(f"{kind}: session.run, a call per core", seconds["documents"] / seconds["spread"], unit),
            at_least(f"{kind}: end to end ÷ session.run", median(one["plain"] / one["wall"] for one in rounds), "", 0.90),
            seen(f"{kind}: end to end ÷ session.run, a call per core", median(one["spread"] / one["wall"] for one in rounds), ""),
            seen(f"{kind}: the same, if only decoding and a call per core cost time", median(map(_ceiling, rounds)), ""),
            seen(f"{kind}: end to end ÷ that", median(one["plain"] / one["wall"] / _ceiling(one) for one in rounds), ""),
        ]
    return figures


def _ceiling(one: dict[str, float]) -> float:
    return one["plain"] / (one["prepare"] + one["spread"])


def _round(kind: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="mixpeek-bench-") as folder:
        home = Home(Path(folder))
        write = _write_texts if kind == "text" else _write_images
        write(home.files)
        home.apply(_manifest(home, kind))
        alone = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.extraction", kind, str(home.files)],
            env=home.env, cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if alone.returncode != 0:
            raise RuntimeError(alone.stderr[-3000:])
        seconds: dict[str, float] = json.loads(alone.stdout.splitlines()[-1])
        home.command("run", "--now", "--quiet")
        with home.warehouse.catalog.reading() as records:
            (batch,) = records.batches.page()[0]
            (step,) = records.batches.steps(batch.batch_id)
        assert (step.inferred, step.failed) == (OBJECTS, 0), step
        return seconds | {"wall": step.seconds, "documents": step.documents}


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
        right, bottom = left + photo.width * 2 // 3 - number // len(photos), top + photo.height * 2 // 3
        cut = photo.crop((left, top, right, bottom)).resize((480, 360))
        data = io.BytesIO()
        cut.save(data, "JPEG", quality=85)
        (folder / f"{number:04d}.jpg").write_bytes(data.getvalue())


def alone(kind: str, files: Path) -> dict[str, float]:
    """Seconds of the model alone on the same packed calls: `plain` with ONNX Runtime's own threads, one call after another;
    `spread` as we call it, single-threaded calls side by side. `prepare` is decoding or tokenizing all files."""
    import onnxruntime

    warehouse = Warehouse.from_env()
    with warehouse.catalog.reading() as records:
        (collection,) = records.collections.all()
    extractor, threads = warehouse.extractor(collection.feature_extractor), warehouse.settings.threads
    tower: Any = extractor.towers["embedding"]  # type: ignore[attr-defined]
    inputs = [{kind: Content(data=file.read_bytes(), filename=file.name)} for file in sorted(files.iterdir())]
    started = time.perf_counter()
    prepared = prepare(extractor, inputs, threads=threads)
    prepare_s = time.perf_counter() - started
    units = [unit for units in prepared if isinstance(units, list) for unit in units]
    feeds = [tower.feed(call.payloads) for call in plan(extractor, units)]
    ours = tower.model.session
    model = warehouse.models.pack(extractor.params.model).file(tower.tower.model)  # type: ignore[attr-defined]
    plain = onnxruntime.InferenceSession(model, providers=ours.get_providers())
    seconds = {"prepare": prepare_s}
    for name, session, side_by_side in (("plain", plain, 1), ("spread", ours, threads)):
        session.run([tower.tower.output], feeds[0])
        started = time.perf_counter()
        with ThreadPoolExecutor(side_by_side) as pool:
            list(pool.map(partial(session.run, [tower.tower.output]), feeds))
        seconds[name] = time.perf_counter() - started
    return seconds


if __name__ == "__main__":
    _, kind, files = sys.argv
    print(json.dumps(alone(kind, Path(files))))
