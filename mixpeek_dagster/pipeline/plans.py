"""What the next run of a sync would do, found out by listing, without writing anything to the catalog.

A plan reads the same pages, merges and decides with the same code as a pass (`merge`), and counts where a pass records. Its memory does
not grow with the source: what it has to remember goes to a file that vanishes with it.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.catalog.scratch import Scratch
from mixpeek_dagster.catalog.syncs import KeyState
from mixpeek_dagster.errors import MixpeekError
from mixpeek_dagster.models.buckets import Bucket
from mixpeek_dagster.models.collections import Collection, downstream_tiers
from mixpeek_dagster.models.ids import CollectionId, SyncId
from mixpeek_dagster.models.syncs import Counters, Phase, Sync
from mixpeek_dagster.models.values import Value
from mixpeek_dagster.pipeline.entries import behind, known_as
from mixpeek_dagster.pipeline.intake import Intake
from mixpeek_dagster.pipeline.merge import (
    ASKED_AT_ONCE,
    TRIED_AGAIN,
    ask_for,
    compare,
    config_hash,
    deleted_upto,
    doomed_states,
    first_cursor,
    held_deletes,
    is_full,
    moved_on,
    read_page,
    refusal_of,
    registered,
    room_of,
    unordered_cursor,
)
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.storage.provider import ObjectSource

_CHUNK = 500


class CollectionCost(Value):
    """What a collection will have to work on. `seconds` is None when nothing like it has ever been measured."""

    collection_id: CollectionId
    collection_name: str
    extractor: str
    inputs: int | None
    seconds: float | None


class PassPlan(Value):
    """What the next run of a sync would do.

    Attributes:
        counters: as the run's own will be; `held` are deletes that are too many to be believed, and wait for a confirmation.
        moved: how many of the new files have the content of a deleted one, by its etag: read, but not inferred again.
        to_extract, bytes_to_read: objects that would be put into batches, and the size of their files.
        costs: what extraction takes, collection by collection, from the speed of earlier batches.
        is_complete: False when the time allowed was over first; then the counts are of the part that was listed and asked for.
        is_capped: the run would stop at the sync's `max_objects_per_run`; the next one goes on from there.
        error: why the listing failed; then a pass would fail, too, and delete nothing. In a complete plan: why some missing files may
            not be asked for; a pass leaves those alone.
    """

    sync_id: SyncId
    source: str
    counters: Counters
    moved: int
    to_extract: int
    bytes_to_read: int
    costs: Sequence[CollectionCost] = ()
    is_complete: bool = True
    is_capped: bool = False
    error: str | None = None

    @property
    def seconds(self) -> float | None:
        """What extraction will take one run after the other; None when a part of it is unknown."""
        known = [cost.seconds for cost in self.costs if cost.seconds is not None]
        return sum(known) if len(known) == len(self.costs) else None


def plan_sync(warehouse: Warehouse, sync_id: SyncId, *, budget_s: float = float("inf"), full: bool = False) -> PassPlan:
    """List a sync's source and say what its next run would do. A pass that is under way is planned to its end.

    Args:
        full: of the next full pass, which looks at every file again; what is left of a pass under way is in it.

    Raises:
        NotFound: no such sync. Invalid: its connection does not fit any more. Failures of the provider are told in the plan.
    """
    with warehouse.catalog.reading() as records:
        sync = records.syncs.get(sync_id)
        bucket = records.buckets.get(sync.bucket_id, namespace_id=sync.namespace_id)
    if full:
        at_rest = sync.cursor.model_copy(update={"phase": Phase.IDLE})
        sync = sync.model_copy(update={"cursor": at_rest, "pending_full": True})
    with Scratch() as scratch:
        return _Planner(warehouse, sync, bucket, scratch).run(deadline=time.monotonic() + budget_s)


@dataclass
class _Sums:
    to_extract: int = 0
    bytes_to_read: int = 0
    new_keys: int = 0


class _Planner:
    def __init__(self, warehouse: Warehouse, sync: Sync, bucket: Bucket, scratch: Scratch) -> None:
        self.warehouse, self.sync, self.scratch, self.sums = warehouse, sync, scratch, _Sums()
        self.source: ObjectSource = warehouse.source(sync)
        self.intake = Intake(warehouse, sync, bucket, self.source)
        self.cursor, pass_hash = sync.cursor, config_hash(sync, bucket, place=self.source.uri)
        if self.cursor.phase is Phase.IDLE or self.cursor.pass_hash != pass_hash:
            self.cursor = first_cursor(sync, self.source, pass_hash=pass_hash)
        elif self.cursor.job_id is None:
            done = self.cursor.counters
            self.cursor = self.cursor.model_copy(update={"taken_before": done.new + done.changed})

    def run(self, *, deadline: float) -> PassPlan:
        error, is_over = None, False
        try:
            self._remember_missing()
            while self.cursor.phase is not Phase.DELETE and not is_full(self.cursor, self.sync.spec) and not is_over:
                self._take_page()
                is_over = time.monotonic() >= deadline
            if self.cursor.phase is Phase.DELETE:
                is_over = not self._judge_missing(deadline)
        except MixpeekError as failure:
            error = failure.message
        moved = self.scratch.moved()
        return PassPlan(
            sync_id=self.sync.sync_id,
            source=self.source.uri,
            counters=self.cursor.counters,
            moved=moved,
            to_extract=self.sums.to_extract,
            bytes_to_read=self.sums.bytes_to_read,
            costs=self._costs(self.sums.to_extract, inferred=self.sums.to_extract - moved),
            is_complete=error is None and not is_over,
            is_capped=is_full(self.cursor, self.sync.spec),
            error=error or refusal_of(self.cursor),
        )

    def _remember_missing(self) -> None:
        """What the pass that is under way has missed so far. One that sweeps knows at its end what it has not seen."""
        states, seen = doomed_states(self.sync.spec), 0
        cursor, after = self.cursor, (self.cursor.after_key or b"") if self.cursor.phase is Phase.DELETE else b""
        if cursor.phase is Phase.SCAN and cursor.after_key is None:
            return
        if cursor.phase is Phase.SWEEP:
            states, seen = [state for state in states if state is KeyState.DRIFTED], cursor.generation
        upto = behind(cursor.after_key) if cursor.phase is Phase.SCAN else None
        while True:
            with self.warehouse.catalog.reading() as records:
                found = records.syncs.doomed(self.sync.sync_id, states, limit=_CHUNK, after=after, upto=upto, seen=seen)
            if not found:
                return
            for state in states:
                rows = [(key.key, key.size, key.etag) for key in found if key.state == state]
                self.scratch.miss(rows, drifted=state is KeyState.DRIFTED)
            after = found[-1].key

    def _take_page(self) -> None:
        page = read_page(self.source, self.cursor)
        if page is None:
            self.scratch.start_again()
            self.cursor = unordered_cursor(self.cursor)
            return
        before, sync_id = self.cursor, self.sync.sync_id
        with self.warehouse.catalog.reading() as records:
            rows = registered(records, self.sync, before, page)
            if isinstance(rows, dict):
                for key, row in self.scratch.decided([known_as(entry.key) for entry in page.entries]).items():
                    if row is not None:
                        rows[key] = row
                    else:
                        rows.pop(key, None)
            room = room_of(before, self.sync.spec)
            now = self.warehouse.now()
            found = compare(records, self.intake, before, page, rows, source=self.source, room=room, now=now)
        taken = found.taken
        created = {str(stored.object_id) for stored in taken.created}
        self.scratch.decide(taken.keys, created=created, removed=taken.gone_keys, generation=before.generation)
        self.scratch.miss(taken.drifted, drifted=True)
        if self.sync.spec.reconcile.on_delete:
            self.scratch.miss(found.absent)
        is_idle = not found.entries
        if before.phase is Phase.SWEEP:
            is_idle = not self.scratch.see(found.known) and len(found.known) == len(found.entries)
        self.sums.to_extract += len(taken.object_ids)
        self.sums.bytes_to_read += taken.read_bytes
        self.sums.new_keys += taken.new_keys - len(taken.gone_keys)
        self.cursor = moved_on(before, page, found, is_idle=is_idle, seconds=0.0)
        if self.cursor.phase is Phase.DELETE:
            with self.warehouse.catalog.reading() as records:
                self._count_failed(records)
            if before.phase is Phase.SWEEP and self.sync.spec.reconcile.on_delete:
                self._miss_unseen(sync_id, before.generation)

    def _count_failed(self, records: Records) -> None:
        """Objects whose extraction failed are tried again, but for those that change or go now."""
        most = TRIED_AGAIN if self.cursor.counters.listed else 0
        failed, _ = records.objects.failed_of_sync(self.sync.sync_id, dead=False, limit=most)
        blobs = {stored.blobs[0].source_key(): stored.blobs[0] for stored in failed}
        decided = self.scratch.decided(list(blobs))
        as_before = {key: row is not None and row[2:4] == (blobs[key].etag, blobs[key].version) for key, row in decided.items()}
        again = [stored for stored, key in zip(failed, blobs) if as_before.get(key, True)]
        self.sums.to_extract += len(again)
        self.sums.bytes_to_read += sum(stored.size_bytes for stored in again)

    def _miss_unseen(self, sync_id: SyncId, generation: int) -> None:
        after = b""
        while True:
            with self.warehouse.catalog.reading() as records:
                rows = records.syncs.unseen(sync_id, generation=generation, after=after, limit=_CHUNK)
            if not rows:
                return
            self.scratch.miss(self.scratch.unseen(rows))
            after = rows[-1][0]

    def _judge_missing(self, deadline: float) -> bool:
        """Whether what is missing would be deleted: held back when there is too much of it, else asked for by name; False when time is
        over first."""
        cursor, spec, missing = self.cursor, self.sync.spec, self.scratch.missing()
        if not missing:
            return True
        with self.warehouse.catalog.reading() as records:
            known = sum(records.syncs.count_keys(self.sync.sync_id).values()) + self.sums.new_keys
        held = 0 if cursor.deletes_believed else held_deletes(cursor, spec, missing=missing, registered=known)
        if held:
            self.cursor = cursor.model_copy(update={"counters": cursor.counters.plus(held=held)})
            return True
        for rows in self.scratch.take_missing(at_a_time=ASKED_AT_ONCE):
            drifted = {row[0] for row in rows if row[3]}
            if len(drifted) < len(rows) and time.monotonic() >= deadline:
                return False
            answers = ask_for(self.source, [row[0] for row in rows], drifted=drifted)
            self.scratch.go(row for row, answer in zip(rows, answers) if answer is None)
            self.cursor = deleted_upto(self.cursor, rows[-1][0], answers, seconds=0.0)
        return True

    def _costs(self, objects: int, *, inferred: int) -> list[CollectionCost]:
        if not objects:
            return []
        with self.warehouse.catalog.reading() as records:
            return extraction_costs(records, self.sync, objects=objects, inferred=inferred)


def extraction_costs(records: Records, sync: Sync, *, objects: int, inferred: int) -> list[CollectionCost]:
    """What extraction of so many objects of a sync takes, tier by tier, at the speed that steps with the same extractor had.

    Args:
        inferred: how many of the objects have a content that was not seen before.
    """
    every = {one.collection_id: one for one in records.collections.all(sync.namespace_id)}
    wanted = sync.spec.batch_collection_ids
    speeds = _by_extractor(every, records.batches.speeds(sync.namespace_id))
    expected: dict[str, float | None] = {sync.bucket_id: float(inferred)}
    listed: dict[str, float | None] = {sync.bucket_id: float(objects)}
    costs = []
    for tier in downstream_tiers(every.values(), roots=[sync.bucket_id]):
        for one in (every[collection_id] for collection_id in tier if wanted is None or collection_id in wanted):
            inputs, fresh = (_sum_of(amounts, one.source.upstream) for amounts in (listed, expected))
            speed = speeds.get(one.fingerprint)
            fan_out = speed["documents"] / speed["inputs"] if speed and speed["inputs"] else None
            per_input = speed["seconds"] / speed["inferred"] if speed and speed["inferred"] else None
            for amounts, amount in ((listed, inputs), (expected, fresh)):
                amounts[one.collection_id] = None if amount is None or fan_out is None else amount * fan_out
            costs.append(
                CollectionCost(
                    collection_id=one.collection_id,
                    collection_name=one.collection_name,
                    extractor=one.feature_extractor.extractor_id,
                    inputs=None if inputs is None else round(inputs),
                    seconds=None if fresh is None or per_input is None else round(fresh * per_input, 3),
                )
            )
    return costs


def _by_extractor(
    collections: Mapping[CollectionId, Collection], speeds: Mapping[CollectionId, Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for collection_id, speed in speeds.items():
        if collection_id in collections:
            total = found.setdefault(collections[collection_id].fingerprint, dict.fromkeys(speed, 0.0))
            for name, value in speed.items():
                total[name] += value
    return found


def _sum_of(amounts: Mapping[str, float | None], upstream: Sequence[str]) -> float | None:
    """The inputs that come from the sources reached here; None when one of them is unknown."""
    reached = [amounts[one] for one in upstream if one in amounts]
    known = [amount for amount in reached if amount is not None]
    return sum(known) if len(known) == len(reached) else None
