"""The port of vector indexes: write, search, delete, count and rebuild what the catalog records.

The catalog is the record; an index is a projection that may be dropped and rebuilt at any time. Document ids are the catalog's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, cast

from mixpeek_dagster import plugins
from mixpeek_dagster.errors import Invalid
from mixpeek_dagster.settings import Settings

if TYPE_CHECKING:
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


@dataclass(frozen=True)
class Stamp:
    """What stands in the catalog for one (collection, output); equal stamps mean equal rows.

    Attributes:
        generation: changes whenever a row was removed or hidden, or anything else happened that new sequence numbers do not tell.
        last_seq: the highest sequence number given out, 0 before the first. Rows become visible in the order of their numbers.
    """

    generation: int
    last_seq: int


class VectorRow(NamedTuple):
    """One document's vector as little-endian float32 bytes; None when the document was written without this output.

    Sequence numbers start at 1. Whenever a document is written again its row gets a new, higher one.
    """

    seq: int
    document_id: str
    vector: bytes | None


class VectorRows(Protocol):
    """The vectors that the catalog stores, as an index may read them. Every call reads what is committed when it starts."""

    def stamp(self, collection_id: str, output: str) -> Stamp: ...

    def vectors(self, collection_id: str, output: str, *, after_seq: int) -> Iterator[VectorRow]:
        """Rows whose `seq` is above `after_seq`, all of them for 0; in any order, one per document.

        Rows without a vector may be left out for 0; otherwise they tell that a vector is gone.
        """
        ...

    def count(self, collection_id: str) -> int:
        """Documents of the collection, those without a vector included."""
        ...

    def ids(self, collection_id: str) -> Iterator[str]:
        """Their ids, in no order."""
        ...


class VectorIndex(Protocol):
    """All writes are idempotent. Methods raise `VectorIndexError` naming the collection and, for partial failures, the documents.

    A space that nobody made or that was dropped is empty: reading it finds nothing, deleting from it does nothing.
    Methods may be called from several threads. An index may be opened before a fork, but not used on both sides of it.
    """

    @classmethod
    def open(cls, settings: Settings, *, rows: VectorRows) -> Self:
        """Build the index without touching the network. `rows` are the catalog's vectors, for indexes that read them."""
        ...

    @property
    def is_projection(self) -> bool:
        """False when the index reads the catalog's own vectors: then nothing has to be written to it."""
        ...

    def ensure(self, space: Space) -> None:
        """Make the space ready; a second call does nothing."""
        ...

    def upsert(self, space: Space, points: Sequence[Point]) -> None:
        """Write or replace; when it returns every point is stored. Of two points of one document the last counts.

        Raises:
            Invalid: a vector is not finite, or not of the shape that `space.outputs` says; nothing was written.
            VectorIndexError: `details["document_ids"]` lists the documents that were not stored; the others were.
        """
        ...

    def delete(self, space: Space, document_ids: Collection[str]) -> None:
        """Remove documents; ids that are not there are ignored."""
        ...

    def search(
        self, space: Space, output: str, vector: NDArray[np.float32], *, top_k: int, among: Collection[str] | None = None
    ) -> list[Hit]:
        """The nearest documents, best first, ties by document id; only those in `among` when it is given.

        Documents without this output are not found. `vector` has shape (dim,) and need not be normalised.

        Raises:
            Invalid: the space has no such output, or `vector` is not finite or of another dimension.
        """
        ...

    def count(self, space: Space) -> int:
        """Documents stored."""
        ...

    def ids(self, space: Space) -> Iterator[str]:
        """Every stored document id, in no order: what `verify` compares with the catalog."""
        ...

    def drop(self, space: Space) -> None:
        """Forget the space and everything in it."""
        ...

    def close(self) -> None:
        """Let go of memory and connections; the next call takes them up again."""
        ...


def open_index(settings: Settings, rows: VectorRows) -> VectorIndex:
    """The index that `settings.index` names, built-in or a plugin's; connects to nothing yet.

    Raises:
        UnknownName: nobody registered the name.
        MissingExtra: the index needs a package that is not installed.
    """
    return cast(VectorIndex, plugins.load("indexes", settings.index).open(settings, rows=rows))


def checked(space: Space, output: str, vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """`vector` as float32 of the shape that the space says.

    Raises:
        Invalid: unknown output, another dimension, or a number that is not finite.
    """
    import numpy as np

    if output not in space.outputs:
        known = ", ".join(sorted(space.outputs)) or "none"
        raise Invalid(f"Collection {space.collection_id} has no vector output {output!r}. Known: {known}.")
    array = np.asarray(vector, dtype=np.float32)
    if array.shape != (space.outputs[output],):
        shape = "x".join(map(str, array.shape)) or "scalar"
        raise Invalid(f"{space.collection_id}/{output} takes vectors of {space.outputs[output]} numbers, this one has {shape}.")
    if not np.isfinite(array).all():
        raise Invalid(f"A vector for {space.collection_id}/{output} holds a number that is not finite.")
    return array
