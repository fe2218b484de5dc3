"""ONNX Runtime: one session per model and device in a process, checked against its manifest before it is used.

Calls are made from several threads on one shared session; a session itself uses one thread and never spins, so the engine decides
how many cores work. ONNX Runtime is imported when the first session is made.
"""

import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mixpeek_dagster.errors import ModelError
from mixpeek_dagster.extractors.manifest import Pack, Port, Side, Tower

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

logger = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda"]
Feed = Mapping[str, NDArray[Any]]

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_DTYPES: dict[str, type[np.generic]] = {"int64": np.int64, "int32": np.int32, "uint8": np.uint8, "float": np.float32}
_loaded: dict[tuple[str, Side, str], "Model"] = {}
_loading = threading.Lock()


@dataclass(frozen=True)
class Model:
    """A loaded tower. Thread-safe; belongs to its process and cannot be pickled."""

    label: str
    tower: Tower
    session: "InferenceSession"
    on_gpu: bool

    def run(self, feed: Feed) -> NDArray[np.float32]:
        """float32 of shape (batch, dim), pooled and normalised as the manifest says."""
        (values,) = self.session.run([self.tower.output], dict(feed))
        with np.errstate(all="ignore"):  # the engine looks for vectors that are not finite
            return np.asarray(self._pooled(values, feed), dtype=np.float32)

    def _pooled(self, values: NDArray[Any], feed: Feed) -> NDArray[Any]:
        if self.tower.pooling == "mean":
            mask = feed["attention_mask"][..., None].astype(np.float32)
            values = (values * mask).sum(axis=1) / np.maximum(mask.sum(axis=1), 1e-9)
        elif self.tower.pooling == "cls":
            values = values[:, 0]
        if self.tower.normalize:
            values = values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)
        return values


def load(pack: Pack, side: Side, *, device: Device = "auto") -> Model:
    """The shared session of one tower, made on the first call.

    Raises:
        ModelError: the file is not a model, it does not fit the manifest, or `device="cuda"` and no GPU can be used.
    """
    provider = _provider(device, pack.label)
    key = (pack.manifest.identity, side, provider)
    with _loading:
        if key not in _loaded:
            _loaded[key] = _open(pack, side, provider, demanded=device == "cuda")
        return _loaded[key]


def load_tokenizer(pack: Pack, side: Side = "text") -> "Tokenizer":
    """The pack's tokenizer, cutting at `max_tokens` and never padding.

    Raises:
        ModelError: the file is missing or no tokenizer.
    """
    # Texts are spread over our own threads; the tokenizer's would only make forked processes warn.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from tokenizers import Tokenizer

    tower = pack.manifest.towers[side]
    try:
        tokenizer: Tokenizer = Tokenizer.from_file(str(pack.file(tower.tokenizer)))
    except Exception as error:  # the binding raises bare Exception
        raise ModelError(f"Model pack {pack.label}: {tower.tokenizer} is no tokenizer ({error}). Put it in the pack.") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(tower.max_tokens)
    return tokenizer


def check(pack: Pack) -> None:
    """Load every tower on the CPU and run it at full length, once per pack and version of ONNX Runtime.

    Raises:
        ModelError: a name, type, shape or value is not what the manifest promises.
    """
    for side in pack.manifest.towers:
        _open(pack, side, _CPU, demanded=False)


def _provider(device: Device, label: str) -> str:
    if device == "cpu":
        return _CPU
    # get_available_providers() tells what the wheel was built with, not what this machine has.
    has_gpu = any(Path(path).exists() for path in ("/dev/nvidia0", "/dev/dxg"))
    if not has_gpu and device == "auto":
        return _CPU
    import onnxruntime

    built_with = onnxruntime.get_available_providers()
    if has_gpu and _CUDA in built_with:
        return _CUDA
    if device == "auto":
        return _CPU
    missing = f"this onnxruntime has only {', '.join(built_with)}" if has_gpu else "this machine has no NVIDIA device"
    raise ModelError(
        f"Model pack {label}: a GPU was demanded, but {missing}. Use device 'auto' or 'cpu', or install onnxruntime-gpu."
    )


def _open(pack: Pack, side: Side, provider: str, *, demanded: bool) -> Model:
    import onnxruntime

    tower, path = pack.manifest.towers[side], pack.file(pack.manifest.towers[side].model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    if provider == _CUDA:
        onnxruntime.preload_dlls()
    providers = [provider] if provider == _CPU else [provider, _CPU]
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # ONNX Runtime's exceptions share no base
        raise _fault(
            pack,
            f"{path.name} cannot be loaded ({_first_line(error)})",
            "Publish it again, or delete the copy in the models folder",
        ) from error
    on_gpu = session.get_providers()[0] == _CUDA
    if provider == _CUDA and not on_gpu:
        if demanded:
            raise _fault(
                pack,
                "a GPU was demanded, but ONNX Runtime fell back to the CPU",
                "Install the CUDA and cuDNN it asks for, or use device 'cpu'",
            )
        logger.warning("Model pack %s runs on the CPU: ONNX Runtime could not use the GPU.", pack.label)
    model = Model(pack.label, tower, session, on_gpu)
    _check_signature(pack, "input", tower.inputs, session.get_inputs())
    _check_signature(pack, "output", tower.outputs, session.get_outputs())
    # A full-length run costs as much as loading, so its success is remembered beside the model.
    passed = pack.file(f"checked-{side}-{onnxruntime.__version__}-{session.get_providers()[0]}")
    if not passed.exists():
        _probe(pack, side, model)
        try:
            passed.touch()
        except OSError:
            logger.debug("The models folder is read-only: %s is probed by every process.", pack.label)
    return model


def _check_signature(pack: Pack, kind: str, expected: Mapping[str, Port], found: list[Any]) -> None:
    nodes = {node.name: node for node in found}
    if kind == "input" and (extra := set(nodes) - set(expected)):
        raise _fault(pack, f"the model also wants the input {min(extra)!r}", "Name it in the manifest")
    for name, (dtype, shape) in expected.items():
        if name not in nodes:
            raise _fault(pack, f"the model has no {kind} {name!r}, only {sorted(nodes)}", "Correct the manifest")
        node = nodes[name]
        if node.type != f"tensor({dtype})":
            raise _fault(pack, f"{kind} {name!r} is {node.type}, the manifest says tensor({dtype})", "Correct the manifest")
        same_rank = len(node.shape) == len(shape)
        sizes = [(has, says) for has, says in zip(node.shape, shape, strict=False) if isinstance(has, int)]
        if not same_rank or any(has != says for has, says in sizes):
            raise _fault(pack, f"{kind} {name!r} has shape {node.shape}, the manifest says {list(shape)}", "Correct the manifest")


def _probe(pack: Pack, side: Side, model: Model) -> None:
    tower = model.tower
    if side == "text":
        # The longest text and the highest token id are where a model that does not fit its tokenizer breaks.
        ids = np.ones((2, tower.max_tokens), dtype=np.int64)
        ids[:, -1] = load_tokenizer(pack, side).get_vocab_size() - 1
        feed = token_feed(tower, ids, np.ones_like(ids))
    else:
        pixels = np.arange(2 * tower.preprocess.resize**2 * 3, dtype=np.int64) % 256
        feed = pixel_feed(tower, pixels.astype(np.uint8).reshape(2, tower.preprocess.resize, tower.preprocess.resize, 3))
    try:
        vectors = model.run(feed)
    except Exception as error:
        what = f"{tower.max_tokens} tokens" if side == "text" else f"{tower.preprocess.resize} pixels"
        raise _fault(
            pack, f"a trial run with {what} failed ({_first_line(error)})", "Correct max_tokens, the tokenizer or preprocess"
        ) from error
    if vectors.shape != (2, tower.dim):
        raise _fault(
            pack, f"a trial run made vectors of shape {list(vectors.shape)}, not [2, {tower.dim}]", "Correct outputs or pooling"
        )
    if not np.isfinite(vectors).all():
        raise _fault(pack, "a trial run made vectors that are not finite", "Export the model again")


def token_feed(tower: Tower, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Feed:
    """Inputs of a text tower from token ids and mask, both (batch, tokens)."""
    values = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return {name: values[name].astype(_DTYPES[dtype], copy=False) for name, (dtype, _) in tower.inputs.items()}


def pixel_feed(tower: Tower, pixels: NDArray[np.uint8]) -> Feed:
    """Inputs of an image tower from RGB pixels (batch, height, width, 3)."""
    ((name, (dtype, _)),) = tower.inputs.items()
    values: NDArray[Any] = pixels
    if dtype == "float":
        how = tower.preprocess
        values = (pixels.astype(np.float32) / 255 - np.asarray(how.mean, np.float32)) / np.asarray(how.std, np.float32)
    if tower.preprocess.layout == "NCHW":
        values = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
    return {name: values.astype(_DTYPES[dtype], copy=False)}


def _fault(pack: Pack, problem: str, remedy: str) -> ModelError:
    return ModelError(f"Model pack {pack.label}: {problem}. {remedy}.")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
