"""Keys that a plan has to remember, in a file of its own that vanishes with it: memory stays flat however many there are.

The catalog proper is only read by a plan. SQLite's temporary database is the standard library's way to spill to disk.
"""

from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from mixpeek_dagster.catalog.rows import chunks
from mixpeek_dagster.catalog.syncs import SourceKey

_TABLES = """
PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;
CREATE TABLE decided (key BLOB PRIMARY KEY, size INT, etag TEXT, version TEXT, state INT, object_id TEXT, seen INT, is_new INT)
    WITHOUT ROWID;
CREATE TABLE seen (key BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE missing (key BLOB PRIMARY KEY, size INT, etag TEXT, is_drifted INT) WITHOUT ROWID;
CREATE TABLE gone (key BLOB PRIMARY KEY, size INT, etag TEXT) WITHOUT ROWID;
"""
_REMOVED = -1


class Scratch:
    """See the module. For one thread, and for one plan: close it, or leave its `with` block."""

    def __init__(self) -> None:
        import sqlite3  # at its first use: `catalog.py` configures SQLite before

        self._db = sqlite3.connect("", isolation_level=None)  # "": a file without a name, deleted when it is closed
        self._db.executescript(_TABLES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._db.close()

    def decide(self, keys: Iterable[SourceKey], *, created: set[str], removed: Iterable[bytes], generation: int) -> None:
        """Remember what registered keys become, which are there then; `created` are the ids of objects that do not exist yet."""
        rows = [(*key[:6], generation, key.object_id in created) for key in keys]
        rows += [(key, 0, "", "", _REMOVED, None, generation, False) for key in removed]
        self._db.executemany("DELETE FROM missing WHERE key = ?", [row[:1] for row in rows])
        self._db.executemany("INSERT OR REPLACE INTO decided VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def decided(self, keys: Sequence[bytes]) -> dict[bytes, tuple[Any, ...] | None]:
        """What was decided about these keys: rows as `SyncRecords.keys_named` has them, and whether the object is new; None: removed."""
        found: dict[bytes, tuple[Any, ...] | None] = {}
        for chunk in chunks(list(keys)):
            marks = ", ".join("?" * len(chunk))
            for row in self._db.execute(f"SELECT * FROM decided WHERE key IN ({marks})", chunk):  # noqa: S608 - marks only
                found[row[0]] = None if row[4] == _REMOVED else row
        return found

    def see(self, keys: Sequence[bytes]) -> int:
        """Note that the listing has named keys; how many of them for the first time."""
        before = self._db.total_changes
        self._db.executemany("INSERT OR IGNORE INTO seen VALUES (?)", [(key,) for key in keys])
        return self._db.total_changes - before

    def unseen(self, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Those rows whose key the listing has not named."""
        named: set[bytes] = set()
        for chunk in chunks([row[0] for row in rows]):
            marks = ", ".join("?" * len(chunk))
            named |= {row[0] for row in self._db.execute(f"SELECT key FROM seen WHERE key IN ({marks})", chunk)}  # noqa: S608
        return [row for row in rows if row[0] not in named]

    def miss(self, rows: Iterable[tuple[Any, ...]], *, drifted: bool = False) -> None:
        """Remember registered keys that the listing should have named, or `drifted` ones, which it has named and are not taken."""
        self._db.executemany("INSERT OR IGNORE INTO missing VALUES (?, ?, ?, ?)", [(*row[:3], drifted) for row in rows])

    def missing(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM missing").fetchone()[0])

    def take_missing(self, *, at_a_time: int) -> Iterator[list[tuple[Any, ...]]]:
        """(key, size, etag, is drifted) of every missing key, in byte order."""
        after = b""
        while rows := self._db.execute("SELECT * FROM missing WHERE key > ? ORDER BY key LIMIT ?", (after, at_a_time)).fetchall():
            yield rows
            after = rows[-1][0]

    def go(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Remember missing keys that are really gone."""
        self._db.executemany("INSERT OR IGNORE INTO gone VALUES (?, ?, ?)", [row[:3] for row in rows])

    def moved(self) -> int:
        """How many new files have the size and the etag of one that is gone: the same content under another name."""
        pairs = """
            SELECT coalesce(sum(min(arrived, left)), 0) FROM
                (SELECT size, etag, count(*) AS arrived FROM decided WHERE is_new AND etag <> '' GROUP BY size, etag)
                JOIN (SELECT size, etag, count(*) AS left FROM gone GROUP BY size, etag) USING (size, etag)
        """
        return int(self._db.execute(pairs).fetchone()[0])

    def start_again(self) -> None:
        """Forget what was missed and seen; what was decided stays."""
        self._db.executescript("DELETE FROM missing; DELETE FROM seen;")
