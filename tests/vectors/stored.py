"""A stand-in for the catalog: vectors in a SQLite file, read as `VectorRows` and written as the catalog would."""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock

import numpy as np

from mixpeek_dagster.vectors.index import Point, Space, Stamp, VectorRow


class StoredVectors:
    def __init__(self, path: Path) -> None:
        self._lock = Lock()
        self.connection = sqlite3.connect(path, check_same_thread=False)
        self.connection.executescript(
            "CREATE TABLE collections (id TEXT PRIMARY KEY, generation INT DEFAULT 0, last_seq INT DEFAULT 0);"
            "CREATE TABLE documents (id TEXT, collection TEXT, seq INT, PRIMARY KEY (collection, id));"
            "CREATE INDEX by_seq ON documents (collection, seq);"
            "CREATE TABLE vectors (collection TEXT, document TEXT, output TEXT, data BLOB,"
            " PRIMARY KEY (collection, document, output))"
        )
        self.read = 0  # rows handed out, for tests of what is read again

    # As the catalog writes

    def ensure(self, space: Space) -> None:
        with self._lock, self.connection as db:
            db.execute("INSERT OR IGNORE INTO collections (id) VALUES (?)", (space.collection_id,))

    def upsert(self, space: Space, points: Sequence[Point]) -> None:
        self.ensure(space)
        collection = space.collection_id
        with self._lock, self.connection as db:
            (first,) = db.execute("SELECT last_seq + 1 FROM collections WHERE id = ?", (collection,)).fetchone()
            db.execute("UPDATE collections SET last_seq = last_seq + ? WHERE id = ?", (len(points), collection))
            for seq, point in enumerate(points, first):
                key = (collection, point.document_id)
                db.execute("INSERT OR REPLACE INTO documents (collection, id, seq) VALUES (?, ?, ?)", (*key, seq))
                db.execute("DELETE FROM vectors WHERE collection = ? AND document = ?", key)
                for output, vector in point.vectors.items():
                    data = np.asarray(vector, "<f4").tobytes()
                    db.execute(
                        "INSERT INTO vectors (collection, document, output, data) VALUES (?, ?, ?, ?)", (*key, output, data)
                    )

    def delete(self, space: Space, document_ids: Sequence[str]) -> None:
        with self._lock, self.connection as db:
            for document_id in document_ids:
                db.execute("DELETE FROM documents WHERE collection = ? AND id = ?", (space.collection_id, document_id))
                db.execute("DELETE FROM vectors WHERE collection = ? AND document = ?", (space.collection_id, document_id))
            db.execute("UPDATE collections SET generation = generation + 1 WHERE id = ?", (space.collection_id,))

    def drop(self, space: Space) -> None:
        ids = list(self.ids(space.collection_id))
        self.delete(space, ids)

    # As an index reads

    def stamp(self, collection_id: str, output: str) -> Stamp:
        with self._lock:
            row = self.connection.execute(
                "SELECT generation, last_seq FROM collections WHERE id = ?", (collection_id,)
            ).fetchone()
        return Stamp(*(row or (0, 0)))

    def vectors(self, collection_id: str, output: str, *, after_seq: int) -> Iterator[VectorRow]:
        with self._lock:
            rows = self.connection.execute(
                "SELECT d.seq, d.id, v.data FROM documents d"
                " LEFT JOIN vectors v ON v.collection = d.collection AND v.document = d.id AND v.output = ?"
                " WHERE d.collection = ? AND d.seq > ?",
                (output, collection_id, after_seq),
            ).fetchall()
        for row in rows:
            self.read += 1
            yield VectorRow(*row)

    def count(self, collection_id: str) -> int:
        with self._lock:
            return int(
                self.connection.execute("SELECT count(*) FROM documents WHERE collection = ?", (collection_id,)).fetchone()[0]
            )

    def ids(self, collection_id: str) -> Iterator[str]:
        with self._lock:
            rows = self.connection.execute("SELECT id FROM documents WHERE collection = ?", (collection_id,)).fetchall()
        return (row[0] for row in rows)
