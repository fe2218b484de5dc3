"""A warehouse of its own in a temporary folder, driven from outside as a user drives it: by commands."""

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.settings import Settings

ROOT = Path(__file__).parents[2]
CLI = [sys.executable, "-c", "from mixpeek_dagster.cli import entry; entry()"]
STUB = "mixpeek_dagster.testing:StubExtractor"


class Home:
    """State in `folder`: MIXPEEK_HOME, DAGSTER_HOME beside it, and the files a sync follows in `files/`."""

    def __init__(self, folder: Path, *, models: Path | None = None) -> None:
        self.folder = folder
        self.files = folder / "files"
        self.files.mkdir(parents=True, exist_ok=True)
        (folder / "dagster").mkdir(exist_ok=True)
        (folder / "dagster" / "dagster.yaml").write_text("telemetry: {enabled: false}\nnux: {enabled: false}\n")
        own = {"MIXPEEK_HOME": str(folder / "mixpeek"), "DAGSTER_HOME": str(folder / "dagster"), "PYTHONPATH": str(ROOT)}
        own["MIXPEEK_PLUGIN_MODULES"] = "mixpeek_dagster.testing"
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("MIXPEEK_", "DAGSTER_"))}
        given = os.environ.get("MIXPEEK_MODELS")
        self.env = {**kept, **own, **({"MIXPEEK_MODELS": given} if given else {})}

    @property
    def warehouse(self) -> Warehouse:
        return Warehouse(settings=Settings.from_env(self.env))

    def command(self, *arguments: str, check: bool = True, timeout_s: float = 240) -> "subprocess.CompletedProcess[str]":
        """Run `mixpeek-dagster …` to its end."""
        done = subprocess.run([*CLI, *arguments], env=self.env, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s)
        assert not check or done.returncode == 0, f"{arguments} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def python(self, program: str, **environment: str) -> str:
        """What a program prints that runs over this warehouse, in a process of its own."""
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, env=self.env | environment, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """Start `mixpeek-dagster …` and return at once."""
        out = (self.folder / "output.log").open("ab")
        return subprocess.Popen([*CLI, *arguments], env=self.env, cwd=ROOT, stdout=out, stderr=out, start_new_session=True)

    def stub_library(self, **parameters: Any) -> None:
        """One bucket that follows `files/`, and one collection over it with the stub extractor."""
        self.apply(
            {
                "namespace": "crash",
                "buckets": {
                    "files": {
                        "schema": {"properties": {"content": {"type": "text"}}},
                        "syncs": {"disk": {"provider": "local", "sync_config": {"source_path": str(self.files)}}},
                    }
                },
                "collections": {
                    "stub": {
                        "source": {"type": "bucket", "bucket_ids": ["files"]},
                        "feature_extractor": {
                            "feature_extractor_name": STUB,
                            "version": "v1",
                            "parameters": parameters,
                            "field_passthrough": [{"source_path": "path"}],
                        },
                    }
                },
            }
        )

    def apply(self, manifest: dict[str, Any]) -> None:
        file = self.folder / "warehouse.yaml"
        file.write_text(yaml.safe_dump(manifest))
        self.command("apply", str(file))

    def write_texts(self, count: int, *, seed: int = 1) -> None:
        """`count` small text files of different lengths, in folders of a hundred."""
        rng = random.Random(seed)
        for number in range(count):
            file = self.files / f"{number // 100:03d}" / f"{number:05d}.txt"
            file.parent.mkdir(exist_ok=True)
            words = " ".join(rng.choices(WORDS, k=rng.randint(15, 110)))
            file.write_text(f"Text {number}. {words}.")


WORDS = [
    "river",
    "stone",
    "window",
    "garden",
    "engine",
    "winter",
    "letter",
    "copper",
    "bridge",
    "market",
    "shadow",
    "signal",
    "harbor",
    "forest",
    "candle",
    "mirror",
    "ladder",
    "valley",
    "thunder",
    "basket",
    "pencil",
    "anchor",
    "meadow",
    "kettle",
    "saddle",
    "velvet",
    "ribbon",
    "lantern",
    "hammer",
    "pillow",
    "orchard",
    "violin",
    "compass",
    "blanket",
    "feather",
    "granite",
    "island",
    "jacket",
    "kitchen",
    "lemon",
    "magnet",
    "needle",
    "oyster",
    "parcel",
    "quarry",
    "rocket",
    "salmon",
    "ticket",
    "umbrella",
    "vessel",
    "walnut",
    "yellow",
    "zipper",
    "autumn",
    "bottle",
    "castle",
    "dragon",
    "eagle",
    "falcon",
    "glacier",
    "hollow",
    "insect",
    "jungle",
]
