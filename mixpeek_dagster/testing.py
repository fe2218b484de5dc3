"""Stand-ins for tests and benchmarks of programs that use the warehouse."""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from mixpeek_dagster.errors import ExtractionError
from mixpeek_dagster.extractors.extractor import Content, Input, Output, Packing, Unit, Vectors, fingerprint
from mixpeek_dagster.extractors.models import ModelStore
from mixpeek_dagster.extractors.parameters import Parameters


class StubParams(Parameters):
    """Parameters of `stub_extractor`."""

    extractor_type: Literal["stub_extractor"] = "stub_extractor"
    fail_on: str | None = Field(default=None, description="Objects whose bytes contain it fail.")
    sleep_s: float = Field(default=0.0, ge=0, description="Seconds every object takes.")


class StubExtractor:
    """One vector per object from a hash of its bytes: no model, microseconds, and the same everywhere.

    Named in a collection by its dotted path, `mixpeek_dagster.testing:StubExtractor`.
    """

    DIM: ClassVar[int] = 384
    name: ClassVar[str] = "stub_extractor"
    version: ClassVar[str] = "v1"
    description: ClassVar[str] = "Makes one meaningless but repeatable vector per object, for tests."
    accepts: ClassVar[Mapping[str, frozenset[str]]] = {
        "text": frozenset({"text", "string"}),
        "image": frozenset({"image"}),
        "data": frozenset({"binary", "json", "audio", "video", "pdf"}),
    }
    Params: ClassVar[type[Parameters]] = StubParams
    fields: ClassVar[Mapping[str, str]] = {"size": "integer"}
    outputs: Sequence[Output] = (Output(name="embedding", dim=DIM),)

    def __init__(self, params: StubParams, *, models: ModelStore | None = None) -> None:
        self.params = params
        self.fingerprint = fingerprint(StubExtractor, params)

    def load(self) -> None:
        """Nothing to load."""

    def packing(self, output: str) -> Packing:
        return Packing(budget=256)

    def decompose(self, inputs: Mapping[str, Content]) -> Iterator[Unit]:
        data = b"".join(inputs[name].data for name in sorted(inputs))
        if self.params.sleep_s:
            time.sleep(self.params.sleep_s)
        if self.params.fail_on and self.params.fail_on.encode() in data:
            raise ExtractionError(f"The object contains {self.params.fail_on!r}, on which stub_extractor was told to fail.")
        yield Unit({"size": len(data)}, {"embedding": Input(_hash(data), 1)})

    def embed(self, output: str, payloads: Sequence[Any]) -> Vectors:
        bits = np.unpackbits(np.frombuffer(b"".join(payloads), dtype=np.uint8)).reshape(len(payloads), self.DIM)
        signs: Vectors = (bits.astype(np.float32) * 2 - 1) / np.float32(self.DIM**0.5)
        return signs

    def embed_query(self, query: str | bytes, *, output: str) -> Vectors:
        data = query.encode() if isinstance(query, str) else query
        return np.asarray(self.embed(output, [_hash(data)])[0])


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=StubExtractor.DIM // 8).digest()
