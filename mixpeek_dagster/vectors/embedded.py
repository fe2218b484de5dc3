"""Exact cosine search in this process over the vectors that the catalog itself stores.

Nothing is written here: the catalog's rows are the index. Each (collection, output) that is searched is read once into a float32
matrix of unit rows and from then on follows the catalog: a search compares stamps and loads only what changed.
Linear in the number of vectors: meant for up to about a million per output (1.5 GB at 384 dimensions).
"""

from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from threading import Lock
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mixpeek_dagster.settings import Settings
from mixpeek_dagster.vectors.index import Hit, Point, Space, Stamp, VectorRow, VectorRows, checked

BLOCK_ROWS = 8_192  # at 384 dimensions 12.6 MB: what a reload holds twice, and what replacing a row copies
MAX_CACHED_BYTES = 4 << 30
_STEP_NUMBERS = 196_608
_DECIMALS = 6  # float32 carries no more; rounding lets equal vectors tie wherever in the matrix they stand


class EmbeddedIndex:
    """The `VectorIndex` of a bare machine. Beyond `max_cached_bytes` it forgets matrices, the least recently searched first."""

    def __init__(self, rows: VectorRows, *, max_cached_bytes: int = MAX_CACHED_BYTES) -> None:
        self._rows = rows
        self._max_cached_bytes = max_cached_bytes
        self._matrices: OrderedDict[tuple[str, str], _Matrix] = OrderedDict()
        self._lock = Lock()

    @classmethod
    def open(cls, settings: Settings, *, rows: VectorRows) -> Self:
        return cls(rows)

    @property
    def is_projection(self) -> bool:
        return False

    def ensure(self, space: Space) -> None:
        """Nothing to do: the catalog holds the vectors. So are `upsert`, `delete` and `drop`."""

    def upsert(self, space: Space, points: Sequence[Point]) -> None: ...

    def delete(self, space: Space, document_ids: Collection[str]) -> None: ...

    def drop(self, space: Space) -> None: ...

    def search(
        self, space: Space, output: str, vector: NDArray[np.float32], *, top_k: int, among: Collection[str] | None = None
    ) -> list[Hit]:
        query = _unit(checked(space, output, vector)[np.newaxis])[0]
        matrix = self._matrix(space.collection_id, output, dim=query.shape[0])
        current = matrix.follow(self._rows)
        self._evict(keep=matrix)
        return current.nearest(query, top_k=top_k, among=among)

    def count(self, space: Space) -> int:
        return self._rows.count(space.collection_id)

    def ids(self, space: Space) -> Iterator[str]:
        return self._rows.ids(space.collection_id)

    def close(self) -> None:
        with self._lock:
            self._matrices.clear()

    def _matrix(self, collection_id: str, output: str, *, dim: int) -> "_Matrix":
        key = (collection_id, output)
        with self._lock:
            matrix = self._matrices.get(key)
            if matrix is None or matrix.dim != dim:
                matrix = self._matrices[key] = _Matrix(collection_id, output, dim)
            self._matrices.move_to_end(key)
            return matrix

    def _evict(self, *, keep: "_Matrix") -> None:
        with self._lock:
            total = sum(matrix.nbytes for matrix in self._matrices.values())
            for key, matrix in list(self._matrices.items()):
                if total <= self._max_cached_bytes:
                    break
                if matrix is not keep:
                    total -= self._matrices.pop(key).nbytes


@dataclass(frozen=True)
class _Snapshot:
    """The first `count` rows of a matrix at one moment; safe to read while the matrix goes on changing."""

    count: int
    blocks: tuple[NDArray[np.float32], ...]  # (BLOCK_ROWS, dim) each, unit rows
    document_ids: Sequence[str]
    positions: dict[str, int]
    unusable: frozenset[int]

    def nearest(self, query: NDArray[np.float32], *, top_k: int, among: Collection[str] | None) -> list[Hit]:
        if top_k <= 0:
            return []
        if among is None:
            where, scores = None, self._all_scores(query)
        else:
            found = {self.positions.get(document_id, self.count) for document_id in among}
            where = np.array(sorted(position for position in found if position < self.count), dtype=np.int64)
            scores = self._scores_at(where, query)
        np.round(scores, _DECIMALS, out=scores)
        if self.unusable:
            mask = list(self.unusable) if where is None else np.isin(where, list(self.unusable))
            scores[mask] = -np.inf
        best: NDArray[np.int64] = np.arange(len(scores))
        if top_k < len(scores):
            threshold = scores[np.argpartition(scores, -top_k)[-top_k]]
            best = np.flatnonzero(scores >= threshold)  # more than top_k where the last place is shared
        rows = best if where is None else where[best]
        hits = [Hit(self.document_ids[row], float(scores[i])) for i, row in zip(best, rows, strict=True) if scores[i] > -np.inf]
        return sorted(hits, key=lambda hit: (-hit.score, hit.document_id))[:top_k]

    def _all_scores(self, query: NDArray[np.float32]) -> NDArray[np.float32]:
        scores = np.empty(self.count, dtype=np.float32)
        for start, block in zip(range(0, self.count, BLOCK_ROWS), self.blocks, strict=False):
            used = min(BLOCK_ROWS, self.count - start)
            _similarities(block[:used], query, out=scores[start : start + used])
        return scores

    def _scores_at(self, where: NDArray[np.int64], query: NDArray[np.float32]) -> NDArray[np.float32]:
        scores = np.empty(len(where), dtype=np.float32)
        bounds = np.searchsorted(where, np.arange(len(self.blocks) + 1) * BLOCK_ROWS)
        for number, (start, end) in enumerate(pairwise(bounds)):
            if start < end:
                _similarities(self.blocks[number][where[start:end] - number * BLOCK_ROWS], query, out=scores[start:end])
        return scores


class _Matrix:
    """The rows of one (collection, output). Only `follow` changes it, one thread at a time."""

    def __init__(self, collection_id: str, output: str, dim: int) -> None:
        self.collection_id, self.output, self.dim = collection_id, output, dim
        self._lock = Lock()
        self._stamp: Stamp
        self._snapshot: _Snapshot
        self._clear()

    @property
    def nbytes(self) -> int:
        return len(self._snapshot.blocks) * BLOCK_ROWS * self.dim * 4

    def follow(self, rows: VectorRows) -> _Snapshot:
        """Bring the matrix to what the catalog holds now; returns the result, which later calls do not change.

        As long as the generation stays, only rows with new sequence numbers are read.
        """
        with self._lock:
            # Read before the rows: what is written in between is read now and again by the next call, which changes nothing.
            wanted = rows.stamp(self.collection_id, self.output)
            if wanted != self._stamp:
                try:
                    if wanted.generation != self._stamp.generation or wanted.last_seq < self._stamp.last_seq:
                        self._clear()
                    self._take(rows.vectors(self.collection_id, self.output, after_seq=self._stamp.last_seq))
                except BaseException:
                    self._clear()
                    raise
                self._stamp = wanted
                self._publish()
            return self._snapshot

    def _clear(self) -> None:
        self._stamp = Stamp(0, 0)
        self._count = 0
        self._blocks: list[NDArray[np.float32]] = []
        self._document_ids: list[str] = []
        self._positions: dict[str, int] = {}
        self._unusable: set[int] = set()
        self._publish()

    def _publish(self) -> None:
        self._snapshot = _Snapshot(
            self._count, tuple(self._blocks), self._document_ids, self._positions, frozenset(self._unusable)
        )

    def _take(self, rows: Iterator[VectorRow]) -> None:
        known = (row for row in rows if row.vector is not None or row.document_id in self._positions)
        copied: set[int] = set()
        while chunk := list(islice(known, BLOCK_ROWS)):
            vectors, usable = self._decode(chunk)
            targets = np.array([self._position(row.document_id) for row in chunk], dtype=np.int64)
            self._unusable.difference_update(targets[usable].tolist())
            self._unusable.update(targets[~usable].tolist())
            self._store(targets, vectors, copied)

    def _decode(self, chunk: Sequence[VectorRow]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Unit vectors (len(chunk), dim), and which of them can be searched: there, of the right length, and finite."""
        size = self.dim * 4
        blobs = [row.vector if row.vector is not None and len(row.vector) == size else None for row in chunk]
        joined = b"".join(bytes(size) if blob is None else blob for blob in blobs)
        vectors = np.frombuffer(joined, dtype="<f4").reshape(len(chunk), self.dim).astype(np.float32)
        usable = np.isfinite(vectors).all(axis=1) & np.array([blob is not None for blob in blobs])
        vectors[~usable] = 0
        return _unit(vectors), usable

    def _position(self, document_id: str) -> int:
        position = self._positions.get(document_id)
        if position is None:
            position = self._positions[document_id] = self._count
            self._document_ids.append(document_id)
            self._count += 1
        return position

    def _store(self, targets: NDArray[np.int64], vectors: NDArray[np.float32], copied: set[int]) -> None:
        """Write rows; a block whose published rows change is copied first, because a search may be reading it."""
        while len(self._blocks) * BLOCK_ROWS < self._count:
            self._blocks.append(np.zeros((BLOCK_ROWS, self.dim), dtype=np.float32))
        numbers = targets // BLOCK_ROWS
        for number in np.unique(numbers).tolist():
            mine = numbers == number
            if targets[mine].min() < self._snapshot.count and number not in copied:
                self._blocks[number] = self._blocks[number].copy()
                copied.add(number)
            self._blocks[number][targets[mine] - number * BLOCK_ROWS] = vectors[mine]


def _similarities(rows: NDArray[np.float32], query: NDArray[np.float32], *, out: NDArray[np.float32]) -> None:
    """`rows @ query`, in steps so small that the BLAS starts no threads: on a busy machine they made it five times slower."""
    step = max(1, _STEP_NUMBERS // query.shape[0])
    for start in range(0, len(rows), step):
        np.matmul(rows[start : start + step], query, out=out[start : start + step])


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length 1; a zero row stays zero, so its similarity to anything is 0."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.zeros_like(vectors)
    np.divide(vectors, norms, out=unit, where=norms > 0)
    return unit
