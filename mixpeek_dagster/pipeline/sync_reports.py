"""What a person asks about a sync: when it last ran and runs next, what it found, what finding it cost, what waits to be extracted."""

from collections.abc import Mapping, Sequence

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.catalog.syncs import KeyState, SourceKey
from mixpeek_dagster.models.ids import SyncId
from mixpeek_dagster.models.objects import StoredObject
from mixpeek_dagster.models.syncs import Counters, Phase, Sync
from mixpeek_dagster.models.values import Value

DEAD = (KeyState.REJECTED, KeyState.ARCHIVED, None)


class SyncReport(Value):
    """How a sync is doing.

    Attributes:
        counters: of the pass that is under way, else of the last one. `pages` are listing requests, `seconds` what they took.
        backlog: objects in batches that have not ended. dead_letters: files that cannot become documents as they are.
    """

    sync: Sync
    counters: Counters
    backlog: int
    dead_letters: int

    @property
    def last_pass(self) -> str:
        """When the last pass ended; until the first one has, how it is with that: feeds are followed only after it."""
        sync = self.sync
        if sync.last_pass_at is not None:
            return sync.last_pass_at
        return "never" if sync.cursor.phase is Phase.IDLE else "the first goes on"

    @property
    def facts(self) -> Mapping[str, str | int | float]:
        """Everything by name, for the Dagster UI; numbers plot over time."""
        done, sync = self.counters, self.sync
        return {
            "sync": sync.sync_id,
            "sync status": sync.status.value,
            "last pass": self.last_pass,
            "next pass": sync.next_pass_at or "none is planned",
            **{name: getattr(done, name) for name in ("listed", "new", "changed", "deleted", "skipped", "failed", "held")},
            "listing requests": done.pages,
            "listing seconds": round(done.seconds, 3),
            "backlog": self.backlog,
            "dead letters": self.dead_letters,
            **({"problem": sync.last_error} if sync.last_error else {}),
        }

    @property
    def words(self) -> str:
        """What the last pass found, in a sentence."""
        done = self.counters
        if self.sync.last_counters is None and not done.listed:
            return "No pass has ended yet."
        begin = "Last pass" if self.sync.last_pass_at else "The first pass goes on (feeds are followed after it)"
        held = f", {done.held} deletes held back" if done.held else ""
        return (
            f"{begin}: {done.listed} listed in {done.pages} requests ({done.seconds:.1f} s), {done.new} new, {done.changed} changed, "
            f"{done.deleted} deleted, {done.failed} failed{held}; {self.backlog} objects wait for extraction."
        )


def dead_letters(
    records: Records, sync_id: SyncId, states: Sequence[KeyState | None] = DEAD, *, limit: int, offset: int = 0
) -> tuple[list[SourceKey | StoredObject], int]:
    """Files of a sync that cannot become documents as they are, and how many there are.

    Args:
        states: REJECTED and ARCHIVED are keys that have no object of their present revision; None stands for objects whose
            extraction failed for good.
    """
    keys, of_keys = records.syncs.dead_letters(sync_id, [one for one in states if one is not None], limit=limit, offset=offset)
    if None not in states:
        return list(keys), of_keys
    left, behind = limit - len(keys), max(0, offset - of_keys)
    objects, of_objects = records.objects.failed_of_sync(sync_id, dead=True, limit=left, offset=behind)
    return [*keys, *objects], of_keys + of_objects


def report_of(records: Records, sync: Sync) -> SyncReport:
    """Read how a sync is doing."""
    is_under_way = sync.cursor.job_id is not None
    return SyncReport(
        sync=sync,
        counters=sync.cursor.counters if is_under_way else sync.last_counters or Counters(),
        backlog=records.batches.backlog(sync.sync_id),
        dead_letters=dead_letters(records, sync.sync_id, limit=0)[1],
    )
