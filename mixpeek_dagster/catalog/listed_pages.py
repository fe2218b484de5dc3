"""Records of listing pages that held no news when they were last read, so that an idle pass reads neither them nor their keys again.

A record says: a listing from `after_key` on, answered with entries of this digest, agrees with the keys registered in that range.
It is as true as those keys: whatever writes keys forgets the pages they are in, in the same transaction. Pages do not overlap.
"""

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, or_, select

from mixpeek_dagster.catalog import tables
from mixpeek_dagster.models.ids import SyncId

_pages = tables.listed_pages


class ListedPage(NamedTuple):
    """Keys in (after_key, last_key], or all above `after_key` when it is the last page. `skipped` files are not registered."""

    after_key: bytes
    last_key: bytes
    is_last: bool
    digest: bytes
    config_hash: str
    listed: int
    skipped: int
    size_bytes: int


class ListedPageRecords:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def find(self, sync_id: SyncId, after: bytes, *, config_hash: str) -> ListedPage | None:
        """The page that began behind a key, under the same configuration."""
        mine = and_(_pages.c.sync_id == sync_id, _pages.c.after_key == after, _pages.c.config_hash == config_hash)
        row = self._connection.execute(select(_pages).where(mine)).mappings().first()
        if row is None:
            return None
        page = ListedPage(**{name: row[name] for name in ListedPage._fields})
        return page._replace(after_key=bytes(page.after_key), last_key=bytes(page.last_key), digest=bytes(page.digest))

    def put(self, sync_id: SyncId, page: ListedPage) -> None:
        """Record a page in place of those that held any of its keys."""
        reach = _pages.c.after_key >= page.after_key if page.is_last else _begins_before(page.last_key)
        self._connection.execute(delete(_pages).where(_ends_behind(sync_id, page.after_key), reach))
        self._connection.execute(insert(_pages), page._asdict() | {"sync_id": sync_id})

    def forget(self, sync_id: SyncId, keys: Iterable[bytes] | None = None) -> None:
        """Forget the pages that hold any of these keys, or stand between them; without keys, all of the sync."""
        if keys is None:
            self._connection.execute(delete(_pages).where(_pages.c.sync_id == sync_id))
            return
        found = list(keys)
        if found:
            where = and_(_ends_behind(sync_id, min(found), itself=True), _begins_before(max(found)))
            self._connection.execute(delete(_pages).where(where))


def _ends_behind(sync_id: SyncId, key: bytes, *, itself: bool = False) -> ColumnElement[bool]:
    """Pages that hold keys above `key`; `itself`: or the key. Of those that begin before it only the nearest can."""
    nearest = select(func.max(_pages.c.after_key)).where(_pages.c.sync_id == sync_id, _pages.c.after_key < key).scalar_subquery()
    reaches = _pages.c.last_key >= key if itself else _pages.c.last_key > key
    return and_(_pages.c.sync_id == sync_id, _pages.c.after_key >= func.coalesce(nearest, b""), or_(_pages.c.is_last, reaches))


def _begins_before(key: bytes) -> ColumnElement[bool]:
    return _pages.c.after_key < key
