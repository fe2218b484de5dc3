"""What one page of a listing means, decided and not yet done: a pass does it, a plan counts it, so that they cannot disagree.

A page is checked for being possible, merged with the keys registered in its range, and its new and changed files are decided on
(`Intake.decide`). Nothing here writes.
"""

import hashlib
import operator
from collections.abc import Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.catalog.syncs import KeyState
from mixpeek_dagster.errors import AccessDenied, BadListing
from mixpeek_dagster.models.buckets import Bucket
from mixpeek_dagster.models.syncs import Counters, Phase, Sync, SyncCursor, SyncSpec
from mixpeek_dagster.pipeline.entries import behind, known_as, stands_in
from mixpeek_dagster.pipeline.intake import Intake, Row, Taken
from mixpeek_dagster.storage.provider import Entry, ObjectSource, Page

Answer = Entry | AccessDenied | None
"""A file that was asked for by name, and None where there is none: only what the provider says is gone loses its object."""

SURE_DELETES = 100
"""So many missing files are believed without asking, however small the source is."""

IDLE_PAGES = 1000
"""So many pages in a row without a new file: the listing goes round in circles."""

TRIED_AGAIN = 10_000
"""So many failed objects are put into batches again at the end of one pass."""

ASKED_AT_ONCE = 100
"""So many missing files are asked for between two looks at the time, and before what was found is recorded and the lock prolonged."""

_HEADS = 8


@dataclass(frozen=True)
class Findings:
    """What a page shows. `entries` are those of its files that were looked at, `absent` the registered keys it should have named.

    `is_whole` is False when it was cut short because the run may take no more objects.
    """

    entries: Sequence[Entry]
    taken: Taken
    absent: Sequence[Row]
    known: Sequence[bytes]
    is_whole: bool


def config_hash(sync: Sync, bucket: Bucket, *, place: str) -> str:
    """Changes when a pass could take other files, or make other objects of them; credentials are not in it.

    Args:
        place: what the source lists, as its `uri`: a connection may be pointed at another bucket.
    """
    spec = sync.spec.model_dump_json(include={"source_path", "file_filters", "schema_mapping", "sync_from"})
    return hashlib.sha256(f"{sync.provider}{place}{spec}{bucket.bucket_schema.model_dump_json()}".encode()).hexdigest()[:16]


def first_cursor(sync: Sync, source: ObjectSource, *, pass_hash: str) -> SyncCursor:
    """Where the next pass begins."""
    unordered = sync.cursor.unordered or source.capabilities.order == "unordered"
    return SyncCursor(
        phase=Phase.SWEEP if unordered else Phase.SCAN,
        unordered=unordered,
        generation=sync.cursor.generation + 1,
        config_hash=sync.cursor.config_hash,
        pass_hash=pass_hash,
        full=sync.pending_full,
        confirmed_deletes=sync.confirmed_deletes,
        feed_position=sync.cursor.feed_position,
    )


def read_page(source: ObjectSource, cursor: SyncCursor, *, known: bytes = b"") -> Page | None:
    """The next page; None when it is not in the byte order that was promised, and nothing missing from it may be called gone.

    A page whose digest is `known` may come without its entries.

    Raises:
        BadListing: it goes round in circles.
    """
    sweeping = cursor.phase is Phase.SWEEP
    after = None if sweeping else cursor.after_key
    if known:
        page = source.list_page(after=after, token=cursor.token, known=known)
    else:
        page = source.list_page(after=after, token=cursor.token)
    if page.token is not None and page.token in (cursor.token, cursor.landmark):
        raise BadListing(f"The listing of {source.uri} goes round in circles: it continues where it was before.")
    if cursor.idle_pages > IDLE_PAGES:
        raise BadListing(f"The listing of {source.uri} names no new file on {cursor.idle_pages} pages in a row.")
    if sweeping:  # without an order a page may name a file twice
        return page._replace(entries=list({entry.key: entry for entry in page.entries}.values()))
    return page if _ascends(page.entries, cursor.after_key) else None


def registered(records: Records, sync: Sync, cursor: SyncCursor, page: Page) -> dict[bytes, Row] | Sequence[Row]:
    """What the catalog knows of a page's range: its rows in order, or for an unordered listing those of its own keys."""
    if cursor.phase is Phase.SWEEP:
        return records.syncs.keys_named(sync.sync_id, [known_as(entry.key) for entry in page.entries])
    if not page.entries and page.token is not None:
        return []
    upto = page.entries[-1].key if page.token is not None else None
    return records.syncs.keys_between(sync.sync_id, behind(cursor.after_key), behind(upto))


def compare(
    records: Records,
    intake: Intake,
    cursor: SyncCursor,
    page: Page,
    rows: dict[bytes, Row] | Sequence[Row],
    *,
    source: ObjectSource,
    room: int,
    now: str,
) -> Findings:
    """Decide what a page's files become; at most `room` objects, where the listing can be resumed behind any key."""
    drifted = cursor.full or cursor.config_hash != cursor.pass_hash
    absent: Sequence[Row] = ()
    if isinstance(rows, dict):
        fresh = [(entry, rows.get(known_as(entry.key))) for entry in page.entries]
    else:
        fresh, absent = merge(page.entries, rows, everything=drifted)
    cuts = cursor.phase is Phase.SCAN and source.capabilities.start_after
    taken = intake.decide(
        records, fresh, generation=cursor.generation, drifted=drifted, room=max(room, 1) if cuts else None, now=now
    )
    known = list(rows) if isinstance(rows, dict) else []
    if taken.stopped_at is None:
        return Findings(page.entries, taken, absent, known, is_whole=True)
    stop = taken.stopped_at
    before = [entry for entry in page.entries if entry.key < stop]
    return Findings(before, taken, [row for row in absent if row[0] < stop], known, is_whole=False)


def moved_on(cursor: SyncCursor, page: Page, found: Findings, *, is_idle: bool, seconds: float) -> SyncCursor:
    """The cursor behind what was found on a page, everything on it counted."""
    taken, entries = found.taken, found.entries
    counters = cursor.counters.plus(
        listed=len(entries),
        new=taken.new,
        changed=taken.changed,
        skipped=taken.skipped,
        failed=taken.failed,
        unchanged=len(entries) - taken.new - taken.changed - taken.skipped - taken.failed,
        bytes=sum(entry.size for entry in entries) - taken.skipped_bytes,
        pages=1,
        seconds=seconds,
    )
    last = entries[-1].key if entries else cursor.after_key
    counted = cursor.model_copy(update={"new_keys": cursor.new_keys + taken.new_keys})
    return turned(counted, last, page.token, counters, is_whole=found.is_whole, is_idle=is_idle)


def turned(
    cursor: SyncCursor,
    after: bytes | None,
    token: str | None,
    counters: Counters,
    *,
    is_whole: bool = True,
    is_idle: bool = False,
) -> SyncCursor:
    """The cursor behind a page that was taken to the key `after`: its end, if it was taken whole. Deletes begin at the first key."""
    is_listed = token is None and is_whole
    return cursor.model_copy(
        update={
            "after": None if after is None or is_listed else after.hex(),
            "token": token if is_whole else None,
            "counters": counters,
            "idle_pages": cursor.idle_pages + 1 if is_idle else 0,
            # Brent's way to find a circle: remember where we were after 1, 2, 4, 8 … pages.
            "landmark": token if counters.pages & (counters.pages - 1) == 0 else cursor.landmark,
            "phase": Phase.DELETE if is_listed else cursor.phase,
        }
    )


def from_the_start(cursor: SyncCursor) -> dict[str, object]:
    """List again under a new generation, so that what was seen before counts as not seen."""
    return {"token": None, "after": None, "generation": cursor.generation + 1, "idle_pages": 0, "landmark": None}


def unordered_cursor(cursor: SyncCursor) -> SyncCursor:
    """Start again, marking what is seen: the listing was not in byte order. What was registered stays, and stays counted."""
    done = cursor.counters
    counters = Counters(new=done.new, changed=done.changed, deleted=done.deleted, failed=done.failed, seconds=done.seconds)
    return cursor.model_copy(update={"phase": Phase.SWEEP, "unordered": True, "counters": counters, **from_the_start(cursor)})


def is_full(cursor: SyncCursor, spec: SyncSpec) -> bool:
    """Whether the run has taken as many objects as one run may, and listed only a part of the source."""
    return room_of(cursor, spec) <= 0 and cursor.phase in (Phase.SCAN, Phase.SWEEP)


def room_of(cursor: SyncCursor, spec: SyncSpec) -> int:
    """How many more objects the run may take."""
    return spec.max_objects_per_run - (cursor.counters.new + cursor.counters.changed - cursor.taken_before)


def held_deletes(cursor: SyncCursor, spec: SyncSpec, *, missing: int, registered: int) -> int:
    """How many deletes are too many to believe: more than 100 and the allowed share, or everything there was; and more than were
    confirmed."""
    done, before = cursor.counters, registered - cursor.new_keys
    is_same_sync = cursor.config_hash == cursor.pass_hash and spec.max_deleted_ratio < 1
    # Nothing was listed that the filters take; or other files in place of all that there were, as with somebody else's credentials.
    vanished = done.listed == done.skipped or (is_same_sync and missing >= before > 1)
    most = 0 if vanished else believed_deletes(spec, registered=registered)
    return missing if missing > max(most, cursor.confirmed_deletes) else 0


def believed_deletes(spec: SyncSpec, *, registered: int) -> int:
    """How many of so many registered files may be gone without anybody being asked."""
    return max(SURE_DELETES, int(spec.max_deleted_ratio * registered))


def doomed_states(spec: SyncSpec) -> list[KeyState]:
    """Which keys a pass of this sync may take away at its end."""
    wanted = {KeyState.MISSING: spec.reconcile.on_delete, KeyState.DRIFTED: spec.reconcile.on_filter_drift}
    return [state for state, is_wanted in wanted.items() if is_wanted]


def ask_for(source: ObjectSource, keys: Sequence[bytes], *, drifted: Container[bytes] = ()) -> list[Answer]:
    """Each file asked for by name; to the sync, the `drifted` ones are gone, though the listing has named them. So are those whose keys
    are too long, once it names them no more: what stands for such a key cannot be asked for, and has no object."""

    def ask(key: bytes) -> Answer:
        try:
            return None if key in drifted or stands_in(key) else source.head(key)
        except AccessDenied as refusal:
            return refusal

    with ThreadPoolExecutor(_HEADS) as pool:
        return list(pool.map(ask, keys))


def deleted_upto(cursor: SyncCursor, last: bytes, answers: Sequence[Answer], *, seconds: float) -> SyncCursor:
    """The cursor behind missing keys up to `last`, all of them asked for: what is refused stays missing, for the next pass to ask."""
    refused = [answer.message for answer in answers if isinstance(answer, AccessDenied)]
    return cursor.model_copy(
        update={
            "after": last.hex(),
            "counters": cursor.counters.plus(deleted=sum(answer is None for answer in answers), seconds=seconds),
            "deletes_believed": True,  # for all of this pass: the share shrinks while we delete
            "refused": cursor.refused + len(refused),
            "refusal": cursor.refusal or next(iter(refused), None),
        }
    )


def refusal_of(cursor: SyncCursor) -> str | None:
    """Why missing files could not be asked for, if there were any."""
    others = cursor.refused - 1
    return (
        f"{cursor.refusal} ({others} other missing files are refused, too; their objects stay)" if others > 0 else cursor.refusal
    )


def _ascends(entries: Sequence[Entry], after: bytes | None) -> bool:
    keys = [entry.key for entry in entries]
    return (not keys or after is None or after < keys[0]) and all(map(operator.lt, keys, keys[1:]))


def merge(entries: Sequence[Entry], rows: Sequence[Row], *, everything: bool) -> tuple[list[tuple[Entry, Row | None]], list[Row]]:
    """Compare a sorted page with the sorted keys registered in the same range: what is new or differs, and what is absent.

    Both start with (key, size, etag, version); a registered row goes on with its state. `everything` takes all for different.
    """
    same = not everything and len(entries) == len(rows)
    if same and all(entry[:4] == row[:4] and row[4] == 0 for entry, row in zip(entries, rows)):
        return [], []
    known = {row[0]: row for row in rows}
    fresh: list[tuple[Entry, Row | None]] = []
    for entry in entries:
        row = known.pop(known_as(entry.key), None)
        if everything or row is None or entry[:4] != row[:4] or row[4] != KeyState.LIVE:
            fresh.append((entry, row))
    return fresh, list(known.values())
