"""One collection over one part of a batch: read, recognise what is known, infer the rest, record.

Work goes in windows. While one window is inferred the next is read and prepared; each is recorded in one transaction with the step's
progress, so a killed run has lost at most the window it was inferring, and a resumed one goes on behind the last recorded window.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.errors import CatalogError, Invalid
from mixpeek_dagster.extractors.engine import Extraction, Prepared, infer, lookahead, prepare
from mixpeek_dagster.extractors.extractor import Extractor
from mixpeek_dagster.models.batches import Batch, BatchPart, Failure, Step
from mixpeek_dagster.models.collections import Collection
from mixpeek_dagster.models.documents import Document, DocumentState, Feature
from mixpeek_dagster.models.ids import document_id
from mixpeek_dagster.pipeline.batches import advance_step, failure_words, finish_step, open_step
from mixpeek_dagster.pipeline.indexing import index_documents
from mixpeek_dagster.pipeline.reading import LARGEST, SMALLEST, Item, Reader, images_of, lookup
from mixpeek_dagster.pipeline.removal import finish_removals, remove_documents, space_of
from mixpeek_dagster.pipeline.second_looks import SecondLooks
from mixpeek_dagster.pipeline.warehouse import Warehouse

FETCH_THREADS = 8
WAITED_S = 0.005
# A window is what a crash may cost: it is sized to take a few seconds, whatever one object takes.
FAST_S, SLOW_S = 5.0, 20.0
SAMPLES = 8


@dataclass
class StepReport:
    """What one step did, for a person to look at. `seconds` and `documents` give its speed; `thumbnails` are (name, image bytes)."""

    step: Step
    documents: int = 0
    size_bytes: int = 0
    failures: list[Failure] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    images: list[tuple[str, bytes]] = field(default_factory=list)


@dataclass
class _Window:
    items: list[Item]
    known: dict[str, list[Feature]]
    to_infer: list[Item]
    prepared: Sequence[Prepared]


def run_step(
    warehouse: Warehouse,
    partition_key: str,
    collection: Collection,
    *,
    run_id: str,
    progress: Callable[[Step], None] = lambda _: None,
) -> StepReport:
    """Materialise one collection for one part.

    Raises:
        Superseded: the part was canceled or taken over; everything recorded so far stays.
        ModelError: the collection's model is missing or broken.
        CatalogError, VectorIndexError: a write failed; the step can be resumed.
    """
    with warehouse.catalog.transaction() as records:
        opened = open_step(records, partition_key, collection.collection_id, run_id=run_id, now=warehouse.now())
    return _StepRun(warehouse, collection, *opened, run_id=run_id).run(progress)


class _StepRun:
    def __init__(
        self, warehouse: Warehouse, collection: Collection, batch: Batch, part: BatchPart, step: Step, *, run_id: str
    ) -> None:
        self.warehouse, self.collection = warehouse, collection
        self.batch, self.part, self.step, self.run_id = batch, part, step, run_id
        self.extractor: Extractor = warehouse.extractor(collection.feature_extractor)
        self.reader = Reader(warehouse, batch, part, collection, self.extractor)
        self.second_looks = SecondLooks(warehouse, batch)
        self.report = StepReport(step)
        self.is_projection = warehouse.index.is_projection
        self.space = space_of(collection)
        self.asked: set[str] = set()
        self.broken: dict[str, Exception] = {}
        self.loading = False
        self.careful = part.is_careful
        self._by = "root_object_id" if collection.source.type == "bucket" else "source_document_id"
        self.index_names = {vector.output: vector.index_name for vector in collection.vectors}

    def run(self, progress: Callable[[Step], None]) -> StepReport:
        if self.is_projection:
            self.warehouse.index.ensure(self.space)
            self._index_pending()
        started = time.perf_counter()
        with ThreadPoolExecutor(FETCH_THREADS, thread_name_prefix="fetch") as pool:
            windows = (partial(self._prepare, window, pool) for window in self.reader.windows(self.step.after))
            if self.careful:
                self.reader.window = 1
            alone = nullcontext(window(threading.Event()) for window in windows)
            with alone if self.careful else lookahead(windows) as ready:
                for window in ready:
                    extractions = infer(self.extractor, window.prepared, threads=self.warehouse.settings.threads)
                    seconds, started = time.perf_counter() - started, time.perf_counter()
                    self._record(window, extractions, seconds=seconds)
                    self._tune(len(window.items), seconds)
                    progress(self.step)
        self._finish()
        return self.report

    def _tune(self, items: int, seconds: float) -> None:
        if self.careful:
            return
        if seconds < FAST_S and items >= self.reader.window:
            self.reader.window = min(2 * self.reader.window, LARGEST)
        elif seconds > SLOW_S:
            self.reader.window = max(self.reader.window // 2, SMALLEST)

    # Reading: in a background thread, one window ahead

    def _prepare(self, items: list[Item], pool: ThreadPoolExecutor, stop: threading.Event) -> _Window:
        self._fetch(items, pool)
        known: dict[str, list[Feature]] = {}
        if not self.batch.reembed:
            with self.warehouse.catalog.reading() as records:
                known = records.documents.features([item.memo_key for item in items if item.memo_key])
        to_infer = []
        for item in items:
            if item.memo_key and item.memo_key not in known and item.memo_key not in self.asked:
                self.asked.add(item.memo_key)  # the same content twice in one part is inferred once
                to_infer.append(item)
        if to_infer and not self.loading:
            self.loading = True
            pool.submit(self.extractor.load)  # beside the first preparation; what is wrong with a model, `infer` will say
        prepared = prepare(
            self.extractor, [item.contents for item in to_infer], threads=self.warehouse.settings.threads, stop=stop
        )
        if len(self.report.images) < SAMPLES:
            self.report.images += images_of(items)[: SAMPLES - len(self.report.images)]
        self.report.size_bytes += sum(content.size for item in items for content in item.contents.values())
        for item in items:
            item.contents = {}
        return _Window(items, known, to_infer, prepared)

    def _fetch(self, items: Sequence[Item], pool: ThreadPoolExecutor) -> None:
        """One after another while they come at once, as from a disk, where threads would cost more than they save; side by side
        where they keep us waiting."""
        started = time.perf_counter()
        for place, item in enumerate(items):
            if place >= 4 and time.perf_counter() - started > place * WAITED_S:
                list(pool.map(self.reader.fetch, items[place:]))
                return
            self.reader.fetch(item)

    # Writing: one transaction a window

    def _record(self, window: _Window, extractions: Sequence[Extraction], *, seconds: float) -> None:
        self.second_looks.take(window.items)
        now = self.warehouse.now()
        features = dict(window.known)
        fresh: list[Feature] = []
        for item, extraction in zip(window.to_infer, extractions):
            if extraction.error is not None:
                item.error = extraction.error
            else:
                features[item.memo_key] = [
                    Feature(
                        item.memo_key,
                        position,
                        unit.fields,
                        {self.index_names[name]: _bytes(v) for name, v in unit.vectors.items()},
                    )
                    for position, unit in enumerate(extraction.units)
                ]
                fresh += features[item.memo_key]
        self.broken |= {item.memo_key: item.error for item in window.to_infer if item.error is not None}
        awaited = {item.memo_key for item in window.items if item.memo_key} - features.keys() - self.broken.keys()
        if awaited:  # the window before was still inferring them when this one was prepared
            with self.warehouse.catalog.reading() as records:
                features |= records.documents.features(awaited)
        made: dict[str, list[Document]] = {}
        failures: list[Failure] = []
        for item in window.items:
            error = item.error or self.broken.get(item.memo_key)
            if item.skip is None and error is None:
                try:
                    made[item.place] = self._documents(item, features[item.memo_key], now=now)
                except Invalid as problem:
                    error = problem
            if item.skip is None and error is not None:
                failures.append(self._failure(item, error, now=now))
        if self.is_projection:
            # The step moves on only when the index has the documents and the stale ones are on their way out.
            with self.warehouse.catalog.transaction() as records:
                advance_step(records, self.batch, self.part, self.step, run_id=self.run_id, now=now, is_news=False)
                _, documents = self._still_wanted(records, window, made)
                self._write(records, fresh, documents, now=now)
            self._index(documents)
        with self.warehouse.catalog.transaction() as records:
            items, documents = self._still_wanted(records, window, made)
            step = self._moved_on(window, items, documents, failures, seconds=seconds)
            advance_step(records, self.batch, self.part, step, run_id=self.run_id, now=now)
            if not self.is_projection:
                self._write(records, fresh, documents, now=now)
            sources = [(_source(item), _revision(item), self._identity(item), len(made[item.place])) for item in items]
            self._remove_stale(records, sources, now=now)
            if self.part.attempt > 1:
                done = [item.item_id for item in window.items if item.error is None]
                records.batches.clear_failures(self.batch.batch_id, self.collection.collection_id, done)
            records.batches.add_failures(failures)
        self.step = self.report.step = step
        if self.is_projection:
            finish_removals(self.warehouse, collection=self.collection)
        self.report.documents += len(documents)
        self.report.failures += failures[: 50 - len(self.report.failures)]
        if len(self.report.rows) < SAMPLES:
            files: dict[str, Any] = {
                item.stored.object_id: item.stored.fields.get("path") for item in window.items if item.stored
            }
            sample = documents[: SAMPLES - len(self.report.rows)]
            self.report.rows += [{"file": files.get(document.root_object_id or ""), **document.payload} for document in sample]

    def _still_wanted(
        self, records: Records, window: _Window, made: Mapping[str, Sequence[Document]]
    ) -> tuple[list[Item], list[Document]]:
        """The items that documents were made of, and these documents; without those whose source went meanwhile, and those of which a
        faster run has written a later revision. Their objects stay as they are until the transaction ends."""
        items = [item for item in window.items if item.place in made]
        revisions = records.objects.hold_all(item.object_id for item in items if item.object_id is not None)
        upstream = records.documents.existing(item.upstream.document_id for item in items if item.upstream is not None)
        items = [
            item
            for item in items
            if (item.object_id is None or item.object_id in revisions)
            and (item.upstream is None or item.upstream.document_id in upstream)
        ]
        changed = [_source(item) for item in items if revisions.get(item.object_id or "", 0) > _revision(item)]
        if changed:
            written = records.documents.revisions(self.collection.collection_id, changed, by=self._by)
            items = [item for item in items if written.get(_source(item), 0) <= _revision(item)]
        return items, [document for item in items for document in made[item.place]]

    def _moved_on(
        self,
        window: _Window,
        items: Sequence[Item],
        documents: Sequence[Document],
        failures: Sequence[Failure],
        *,
        seconds: float,
    ) -> Step:
        """The step behind a window of which these items, documents and failures are recorded."""
        before, asked = self.step, {item.place for item in window.to_infer}
        return before.model_copy(
            update={
                "after": window.items[-1].place,
                "inputs": before.inputs + len(window.items),
                "documents": before.documents + len(documents),
                "failed": before.failed + len(failures),
                "inferred": before.inferred + sum(1 for item in window.to_infer if item.error is None),
                "reused": before.reused + sum(1 for item in items if item.place not in asked),
                "skipped": before.skipped + len(window.items) - len(items) - len(failures),
                "seconds": before.seconds + seconds,
            }
        )

    def _write(self, records: Records, features: Sequence[Feature], documents: Sequence[Document], *, now: str) -> None:
        reused = {document.memo_key for document in documents} - {feature.memo_key for feature in features}
        if records.documents.forgotten(reused):  # unused for a week, and dropped after we had looked them up
            raise CatalogError(
                f"Features that part {self.part.partition_key} was to use again were dropped meanwhile; it is run again."
            )
        records.documents.add_features(features, now=now)
        records.documents.put(self.collection.collection_id, documents)

    def _documents(self, item: Item, features: Sequence[Feature], *, now: str) -> list[Document]:
        passed = self._passed_through(item)
        identity = self._identity(item)
        stored, upstream = item.stored, item.upstream
        return [
            Document.model_construct(
                document_id=document_id(self.collection.collection_id, identity, feature.position),
                namespace_id=self.collection.namespace_id,
                collection_id=self.collection.collection_id,
                root_bucket_id=stored.bucket_id if stored else None,
                root_object_id=stored.object_id if stored else None,
                source_document_id=upstream.document_id if upstream else None,
                source_collection_id=upstream.collection_id if upstream else None,
                partition_key=self.part.partition_key,
                run_id=self.run_id,
                identity=identity,
                position=feature.position,
                revision=_revision(item),
                memo_key=feature.memo_key,
                content_hash=item.content_hash,
                state=DocumentState.PENDING if self.is_projection else DocumentState.INDEXED,
                payload={**passed, **feature.fields},
                created_at=now,
                updated_at=now,
            )
            for feature in features
        ]

    def _passed_through(self, item: Item) -> dict[str, Any]:
        config = self.collection.feature_extractor
        passed: dict[str, Any] = dict(item.fields) if config.include_all_source_fields else {}
        for rule in config.field_passthrough:
            value = lookup(item.fields, rule.source_path)
            if value is None:
                value = rule.default
            if value is None and rule.required:
                raise Invalid(f"{item.item_id}: required passthrough field {rule.source_path!r} is missing in its source.")
            if value is not None:
                passed[rule.target] = value
        return passed

    def _identity(self, item: Item) -> str:
        """What makes reprocessing meet the same documents: the unique key, the synced file, or this very batch."""
        unique = item.stored.unique_value if item.stored else None
        if item.upstream is not None:
            own = self.batch.type == "COLLECTION" and unique is None and self.collection.collection_id in self.batch.dag_tiers[0]
            return f"{item.upstream.document_id}:{self.batch.batch_id}" if own else item.upstream.document_id
        if unique is not None:
            return f"key:{unique}"
        return item.item_id if self.batch.sync_id is not None else f"{item.item_id}:{self.batch.batch_id}"

    def _failure(self, item: Item, error: Exception, *, now: str) -> Failure:
        kind, words = failure_words(error)
        path = item.stored.fields.get("path") if item.stored else None
        if path:
            name = PurePosixPath(path).name  # all that an extractor knows of the path
            words = f"{path}{words.removeprefix(name)}" if words.startswith(f"{name} ") else f"{path}: {words}"
        return Failure(
            batch_id=self.batch.batch_id,
            collection_id=self.collection.collection_id,
            item_id=item.item_id,
            object_id=item.object_id,
            part=self.part.part,
            error_type=kind,
            error=words,
            created_at=now,
        )

    def _remove_stale(self, records: Records, sources: Sequence[tuple[str, int, str, int]], *, now: str) -> None:
        replace = self.batch.dedup_strategy == "replace"
        stale = records.documents.stale(self.collection.collection_id, sources, by=self._by, replace=replace)
        if stale:
            remove_documents(records, self.warehouse, stale, now=now)

    # The vector index, where it is a projection

    def _index(self, documents: Sequence[Document]) -> None:
        index_documents(self.warehouse, self.collection, documents)

    def _index_pending(self) -> None:
        """Bring documents to the index that a crash left between the catalog and it."""
        while True:
            with self.warehouse.catalog.reading() as records:
                waiting = records.documents.not_indexed(
                    self.collection.collection_id, before="~", limit=500, state=DocumentState.PENDING
                )
            if not waiting:
                return
            self._index(waiting)

    def _finish(self) -> None:
        if self.is_projection:
            self._index_pending()
        with self.warehouse.catalog.transaction() as records:
            finish_step(
                records,
                self.batch,
                self.part,
                self.step,
                run_id=self.run_id,
                settings=self.warehouse.settings,
                now=self.warehouse.now(),
            )


def _source(item: Item) -> str:
    return item.upstream.document_id if item.upstream else item.item_id


def _revision(item: Item) -> int:
    return item.stored.revision if item.stored else item.upstream.revision if item.upstream else 1


def _bytes(vector: Any) -> bytes:
    return np.ascontiguousarray(vector, dtype="<f4").tobytes()
