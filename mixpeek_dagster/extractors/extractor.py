"""The port of extractors: one object becomes units, units become vectors.

Extractors declare and compute; the engine owns threads, packing, memory and error isolation. `decompose` sees one object and runs
in many threads; `embed` sees inputs of many objects at once, knows no object boundaries and does no I/O.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from mixpeek_dagster.extractors.manifest import digest
from mixpeek_dagster.extractors.models import ModelStore
from mixpeek_dagster.extractors.parameters import Parameters

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]
else:
    Vectors = Any  # NumPy is only imported where something is computed: most processes compute nothing


@dataclass(frozen=True, kw_only=True)
class Output:
    """One vector an extractor makes: URI `mixpeek://{extractor}@{version}/{name}`, index `{extractor}_{version}_{name}`."""

    name: str
    dim: int
    metric: str = "cosine"
    modality: str = "text"


class Input(NamedTuple):
    """What a model takes for one vector: a payload only the extractor understands, and its cost (tokens, or 1 for an image)."""

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


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How inputs share one call of a model.

    Attributes:
        budget: the most a call may cost: its number of inputs times the cost of the dearest (everything is padded to that).
        slack: how many times dearer than the cheapest the dearest input of a call may be.
    """

    budget: int = 1
    slack: float = 1.15


class Extractor(Protocol):
    """Named `{name}_{version}`. Built once per process from its parameters; `decompose` and `embed` are thread-safe.

    Building one is cheap: `outputs` and `fingerprint` come from manifests, and models are loaded by `load` or the first object.
    `fingerprint` changes whenever a vector or a field could: model, preprocessing, chunking, parameters. It keys the memo and is
    the asset's `code_version`.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    description: ClassVar[str]
    accepts: ClassVar[Mapping[str, frozenset[str]]]
    """Input name → bucket field types it takes, e.g. `{"text": {"text", "string"}}`."""
    Params: ClassVar[type[Parameters]]
    fields: ClassVar[Mapping[str, str]]
    """Fields units carry → field type: known before any run, part of a collection's output schema."""

    def __init__(self, params: Any, *, models: ModelStore) -> None: ...

    @property
    def outputs(self) -> Sequence[Output]: ...

    @property
    def fingerprint(self) -> str: ...

    def load(self) -> None:
        """Have every model ready, fetching it if need be; called beside the preparation of the first inputs.

        Raises:
            ModelError: a model cannot be had or does not fit.
        """
        ...

    def model_files(self) -> Mapping[str, Mapping[str, str]]:
        """Which model makes each output: output name → {file: sha256}; empty without models. May fetch a pack that is not here."""
        ...

    def packing(self, output: str) -> Packing:
        """How to pack inputs of one output on this machine; asked after `load`."""
        ...

    def decompose(self, inputs: Mapping[str, Content]) -> Iterable[Unit]:
        """The units of one object.

        Raises:
            ExtractionError: the object cannot be read; the message says why in words a data team understands.
        """
        ...

    def embed(self, output: str, payloads: Sequence[Any]) -> Vectors:
        """float32 of shape (len(payloads), dim), L2-normalised, in order."""
        ...

    def embed_query(self, query: str | bytes, *, output: str) -> Vectors:
        """float32 of shape (dim,): a text or a file, through the tower that `output` is compared with.

        Raises:
            BadRequest: `output` is not made from this kind of query.
            ExtractionError: the query cannot be read.
        """
        ...


def fingerprint(extractor: type[Extractor], params: Parameters, *parts: str) -> str:
    """sha256 over an extractor's name, version and effective parameters, and whatever else decides its vectors."""
    return digest({"extractor": [extractor.name, extractor.version], "params": params.effective(), "parts": list(parts)})
