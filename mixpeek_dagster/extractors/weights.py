"""Reading published weights without the framework that wrote them: safetensors files and PyTorch checkpoints.

A checkpoint is a pickle. The reader here builds tensors and nothing else: every other name in the pickle is refused.
"""

import io
import json
import pickle
import struct
import zipfile
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixpeek_dagster.errors import ModelError

Array = NDArray[Any]

_SAFETENSORS_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "|u1", "BOOL": "|b1"}
_STORAGE_TYPES = {"DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "LongStorage": "<i8", "IntStorage": "<i4"}


def read_safetensors(data: bytes) -> dict[str, Array]:
    """Tensors by name, as views into `data`.

    Raises:
        ModelError: the file is damaged, or holds a type NumPy does not have (bfloat16).
    """
    try:
        (size,) = struct.unpack_from("<Q", data)
        header = json.loads(data[8 : 8 + size])
        tensors = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            count = int(np.prod(entry["shape"], dtype=np.int64))
            flat = np.frombuffer(data, _SAFETENSORS_TYPES[entry["dtype"]], count, offset=8 + size + entry["data_offsets"][0])
            tensors[name] = flat.reshape(entry["shape"])
        return tensors
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"Not a readable safetensors file: {error!r}.") from error


@dataclass(eq=False)
class _Storage:
    """The flat buffer behind one or more tensors; in the old format its bytes follow the pickles."""

    dtype: str
    values: Array = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> Array:
        # The strides matter: weights converted from another framework are often stored transposed.
        values = self.storage.values[self.offset :]
        needed = 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        if min(self.shape, default=1) < 1 or min(self.strides, default=0) < 0 or needed > values.size:
            raise ModelError("The checkpoint describes a tensor that lies outside its storage.")
        strides = [stride * values.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(values, self.shape, strides, writeable=False)


def _rebuild_tensor(storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _Unpickler(pickle.Unpickler):
    """Knows ordered dictionaries and tensors; the pickle cannot name anything else."""

    def __init__(self, file: io.BufferedIOBase, storages: dict[str, _Storage]) -> None:
        super().__init__(file)
        self._storages = storages

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _STORAGE_TYPES:
            return _STORAGE_TYPES[name]
        raise ModelError(f"The checkpoint names {module}.{name}; only plain tensors are read.")

    def persistent_load(self, pid: Any) -> _Storage:
        _, dtype, key, *_ = pid
        return self._storages.setdefault(str(key), _Storage(dtype))


def read_checkpoint(data: bytes) -> dict[str, Array]:
    """Tensors of a PyTorch state dict by name, in the zip format or the older one of consecutive pickles.

    Raises:
        ModelError: the file is damaged or holds something that is not a plain tensor.
    """
    try:
        tensors = _read_zip(data) if data[:2] == b"PK" else _read_pickles(io.BytesIO(data))
        return {name: tensor.array() for name, tensor in tensors.items()}
    except (
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        struct.error,
    ) as error:
        raise ModelError(f"Not a readable PyTorch checkpoint: {error!r}.") from error


def _read_zip(data: bytes) -> dict[str, _Tensor]:
    storages: dict[str, _Storage] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        (index,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        tensors: dict[str, _Tensor] = _Unpickler(io.BytesIO(archive.read(index)), storages).load()
        for key, storage in storages.items():
            storage.values = np.frombuffer(archive.read(index.removesuffix("data.pkl") + f"data/{key}"), storage.dtype)
    return tensors


def _read_pickles(file: io.BytesIO) -> dict[str, _Tensor]:
    # magic number, protocol, machine; then the state dict, the storage keys, and per storage an int64 length and the values
    storages: dict[str, _Storage] = {}
    for _ in range(3):
        _Unpickler(file, storages).load()
    tensors: dict[str, _Tensor] = _Unpickler(file, storages).load()
    for key in _Unpickler(file, storages).load():
        (count,) = struct.unpack("<q", file.read(8))
        dtype = np.dtype(storages[str(key)].dtype)
        storages[str(key)].values = np.frombuffer(file.read(count * dtype.itemsize), dtype)
    return tensors
