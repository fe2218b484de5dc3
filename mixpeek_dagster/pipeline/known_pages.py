"""Pages of a listing that brought no news: noted when what is registered agrees with them, passed over when they come again.

So an idle pass costs the listing's bytes and a hash of them. It is safe as `catalog/listed_pages.py` says: a note goes with the
first write to a key in its range, so that it holds exactly as long as reading the page again would change nothing.
"""

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.catalog.listed_pages import ListedPage
from mixpeek_dagster.models.syncs import Phase, Sync, SyncCursor
from mixpeek_dagster.pipeline.entries import LONGEST_KEY, behind
from mixpeek_dagster.pipeline.merge import Findings, merge, turned
from mixpeek_dagster.storage.provider import ObjectSource, Page


def known_page(records: Records, sync: Sync, cursor: SyncCursor, source: ObjectSource) -> ListedPage | None:
    """What an earlier pass saw from here on, if there is a note of it, and this pass does not look at every file."""
    if not source.capabilities.digests or cursor.phase is not Phase.SCAN or cursor.full:
        return None
    return records.listed_pages.find(sync.sync_id, cursor.after_key or b"", config_hash=cursor.pass_hash)


def passed_over(cursor: SyncCursor, known: ListedPage, page: Page, *, seconds: float) -> SyncCursor:
    """The cursor behind a page that came again as it was."""
    counters = cursor.counters.plus(
        listed=known.listed,
        skipped=known.skipped,
        unchanged=known.listed - known.skipped,
        bytes=known.size_bytes,
        pages=1,
        seconds=seconds,
    )
    return turned(cursor, known.last_key, page.token, counters)


def remember_page(records: Records, sync: Sync, cursor: SyncCursor, page: Page, found: Findings) -> None:
    """Note a page, after what it brought was recorded, if it would bring nothing when it came again: what is registered is what it
    names, but for files that the filters do not take. `cursor` is where the page began."""
    entries, taken = page.entries, found.taken
    if not (page.digest and entries and found.is_whole and cursor.phase is Phase.SCAN) or found.absent:
        return
    after = cursor.after_key or b""
    if len(after) > LONGEST_KEY:
        return  # a note is found by it
    upto = entries[-1].key if page.token is not None else None
    rows = records.syncs.keys_between(sync.sync_id, after, behind(upto))
    differing, absent = merge(entries, rows, everything=False)
    if absent or len(differing) != taken.skipped or any(row is not None for _, row in differing):
        return
    known = ListedPage(
        after_key=after,
        last_key=entries[-1].key,
        is_last=page.token is None,
        digest=page.digest,
        config_hash=cursor.pass_hash,
        listed=len(entries),
        skipped=taken.skipped,
        size_bytes=sum(entry.size for entry in entries) - taken.skipped_bytes,
    )
    records.listed_pages.put(sync.sync_id, known)
