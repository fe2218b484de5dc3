"""The port of vector indexes: write, search, delete, count and rebuild what the catalog records.

The catalog is the record; an index is a projection that may be dropped and rebuilt at any time. Document ids are the catalog's.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Space:
    """The vectors of one collection. `outputs` maps index names (`text_extractor_v1_embedding`) to their dimensions."""

    namespace_id: str
    collection_id: str
    outputs: Mapping[str, int]


class Point(NamedTuple):
    """One document: its vectors by index name (each optional), float32 of shape (dim,), and its whole payload."""

    document_id: str
    vectors: Mapping[str, NDArray[np.float32]]
    payload: Mapping[str, Any]


class Hit(NamedTuple):
    """One found document; `score` is cosine similarity, -1..1, higher is nearer."""

    document_id: str
    score: float


class VectorIndex(Protocol):
    """All writes are idempotent. Methods raise `VectorIndexError` naming the collection and, for partial failures, the documents."""

    @property
    def is_projection(self) -> bool:
        """False when the index reads the catalog's own vectors: then nothing has to be written to it."""
        ...

    def ensure(self, space: Space) -> None:
        """Make the space ready; a second call does nothing."""
        ...

    def upsert(self, space: Space, points: Sequence[Point]) -> None:
        """Write or replace; when it returns every point is stored."""
        ...

    def delete(self, space: Space, document_ids: Collection[str]) -> None: ...

    def search(
        self, space: Space, output: str, vector: NDArray[np.float32], *, top_k: int, among: Collection[str] | None = None
    ) -> list[Hit]:
        """The nearest documents, best first; only those in `among` when it is given."""
        ...

    def count(self, space: Space) -> int: ...

    def ids(self, space: Space) -> Iterator[str]:
        """Every stored document id, in no order: what `verify` compares with the catalog."""
        ...

    def drop(self, space: Space) -> None:
        """Forget the space and everything in it."""
        ...

    def close(self) -> None: ...
