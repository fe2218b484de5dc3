"""The port of extractors: one object becomes units, units become vectors.

Extractors declare and compute; the engine owns threads, packing, memory and error isolation. `decompose` sees one object and runs
in many threads; `embed` sees inputs of many objects at once, knows no object boundaries and does no I/O.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

Vectors = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Output:
    """One vector an extractor makes. Its URI is `mixpeek://{extractor}@{version}/{name}`, its index `{extractor}_{version}_{name}`."""

    name: str
    dim: int
    metric: str = "cosine"
    modality: str = "text"


class Input(NamedTuple):
    """What a model takes for one vector: a payload only the extractor understands, and what it costs (tokens, pixels / 50,176)."""

    payload: Any
    cost: int


@dataclass(slots=True)
class Unit:
    """One document to be: its own fields, and per output name the input its vector is made from."""

    fields: dict[str, Any]
    inputs: dict[str, Input] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes (or the inline text) behind one extractor input."""

    data: bytes
    filename: str = ""
    mime_type: str = ""


class Extractor(Protocol):
    """Named `{name}_{version}`. Built once per process from its parameters; `decompose` and `embed` are thread-safe.

    `fingerprint` changes whenever a vector or a field could: model sha256, preprocessing, chunking, parameters. It keys the memo
    and is the asset's `code_version`.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    description: ClassVar[str]
    accepts: ClassVar[Mapping[str, frozenset[str]]]
    """Input name → bucket field types it takes, e.g. `{"text": {"text", "string"}}`."""
    Params: ClassVar[type[BaseModel]]
    fields: ClassVar[Mapping[str, str]]
    """Fields every unit carries → field type: known before any run, part of a collection's output schema."""

    def __init__(self, params: BaseModel, *, models: "ModelStore", threads: int = 1) -> None: ...

    @property
    def outputs(self) -> Sequence[Output]: ...

    @property
    def fingerprint(self) -> str: ...

    def decompose(self, inputs: Mapping[str, Content]) -> Iterable[Unit]:
        """The units of one object.

        Raises:
            ExtractionError: the object cannot be read; the message says why in words a data team understands.
        """
        ...

    def embed(self, output: str, payloads: Sequence[Any]) -> Vectors:
        """float32 of shape (len(payloads), dim), L2-normalised, in order."""
        ...

    def embed_query(self, query: Any, *, output: str) -> Vectors:
        """float32 of shape (dim,): a text (str) or a file (bytes), through the tower that `output` is compared with."""
        ...


class ModelStore(Protocol):
    """Where extractors get model packs from: see `extractors.models`."""

    def pack(self, uri: str) -> Any: ...
