"""One pass of the whole warehouse in this process: due syncs, the batches they make, the events that follow; then done.

For cron, CI and benchmarks. The batches go through Dagster's own engine and instance, so the UI shows these runs like any other;
a daemon may work on the same catalog at the same time, since every piece of work is claimed.
"""

import logging
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import dagster as dg

from mixpeek_dagster.definitions.build import build_definitions
from mixpeek_dagster.definitions.plan import load_plan
from mixpeek_dagster.definitions.resources import WarehouseResource
from mixpeek_dagster.definitions.sensors import claim_waves, observation, run_state, selection, wave_tags
from mixpeek_dagster.definitions.stopping import RUN_KEY_TAG
from mixpeek_dagster.definitions.translator import Translator, job_names
from mixpeek_dagster.errors import words_of
from mixpeek_dagster.models.batches import Batch, BatchStatus
from mixpeek_dagster.models.ids import BatchId, SyncId
from mixpeek_dagster.models.syncs import Counters, SyncStatus
from mixpeek_dagster.pipeline.reconcile import reconcile
from mixpeek_dagster.pipeline.syncs import Progress, advance
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.pipeline.webhooks import deliver

logger = logging.getLogger("mixpeek_dagster.definitions")

PROCESS_TAG = "mixpeek/process"
_SLICE_S = 5.0
_WAVE_ITEMS = 1_000_000  # one process has nobody to share with


@dataclass
class PassReport:
    """What a pass did. `ok` is False when a sync, a batch or an object failed."""

    passes: dict[str, Progress] = field(default_factory=dict)
    batches: list[Batch] = field(default_factory=list)
    recovered: int = 0

    @property
    def counters(self) -> Counters:
        names = Counters.model_fields
        return Counters(**{name: sum(getattr(one.counters, name) for one in self.passes.values()) for name in names})

    @property
    def ok(self) -> bool:
        errors = [one for one in self.passes.values() if one.error]
        unwell = [one for one in self.batches if one.status is not BatchStatus.COMPLETED or one.failed_count]
        return not errors and not unwell and not self.counters.failed


@dataclass(kw_only=True)
class Watcher:
    """Told how a pass goes on, for a progress bar."""

    listed: Callable[[str, Counters], None] = lambda _sync, _counters: None
    started: Callable[[int], None] = lambda _items: None


def run_once(warehouse: Warehouse, *, now: bool = False, watcher: Watcher | None = None) -> PassReport:
    """Make one pass.

    Args:
        now: poll every sync that is not paused, due or not.
    """
    return _OnePass(warehouse, watcher or Watcher()).run(now=now)


class _OnePass:
    def __init__(self, warehouse: Warehouse, watcher: Watcher) -> None:
        self.warehouse = warehouse
        self.watcher = watcher
        self.report = PassReport()
        self.translator = Translator()
        self.plan = load_plan(warehouse.catalog)

    @cached_property
    def instance(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.get()

    @cached_property
    def definitions(self) -> dg.Definitions:
        return build_definitions(self.plan, warehouse=WarehouseResource.of(self.warehouse), translator=self.translator)

    @cached_property
    def jobs(self) -> Mapping[str, dg.JobDefinition]:
        """Pipeline → job, resolved."""
        names = {pipeline: name for one in self.plan.namespaces for pipeline, name in job_names(self.translator, one).items()}
        return {pipeline: self.definitions.resolve_job_def(name) for pipeline, name in names.items()}

    def run(self, *, now: bool) -> PassReport:
        self._recover()
        self._run_batches()  # what waits already goes first: its objects are older
        with self.warehouse.catalog.reading() as records:
            due = {one.sync_id for one in records.syncs.due(now=self.warehouse.now())}
            syncs = [one for one in records.syncs.all() if one.sync_id in due or (now and one.status is not SyncStatus.SUSPENDED)]
        for sync in syncs:
            try:
                self._sync(sync.sync_id)
            except Exception as error:  # the other syncs are followed all the same
                logger.exception("Sync %s failed.", sync.sync_id)
                self.report.passes[sync.sync_id] = Progress(sync, Counters(), finished=False, error=words_of(error))
        self._run_batches()
        deliver(self.warehouse)
        return self.report

    def _recover(self) -> None:
        """Take over from processes of this machine that died: their locks, and the parts they had claimed."""
        with self.warehouse.catalog.transaction() as records:
            for sync in records.syncs.all():
                if sync.locked_by and is_dead(sync.locked_by):
                    records.syncs.unlock(sync.sync_id, owner=sync.locked_by)
            unfinished = records.batches.unfinished_parts()
        if unfinished:
            self._bury_dead_runs()
            self.report.recovered = reconcile(self.warehouse, lambda part: run_state(self.instance, part), grace_s=0.0).parts

    def _bury_dead_runs(self) -> None:
        """A run inside a killed process stays STARTED for ever: nobody but its own process would have reported its end."""
        running = self.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        for run in running:
            process = run.tags.get(PROCESS_TAG)
            if process and is_dead(process):
                self.instance.report_run_failed(run, message=f"The process {process} that ran this died.")

    def _sync(self, sync_id: SyncId) -> None:
        while True:
            progress = advance(self.warehouse, sync_id, budget_s=_SLICE_S, force=True)
            if progress is None:
                return
            self.report.passes[sync_id] = progress
            self.watcher.listed(sync_id, progress.counters)
            if progress.finished or progress.error:
                break
        self._observe(sync_id)

    def _observe(self, sync_id: SyncId) -> None:
        for namespace in self.plan.namespaces:
            for sync in namespace.syncs:
                if sync.sync_id == sync_id:
                    bucket = namespace.bucket_of(sync)
                    key = self.translator.get_asset_spec(bucket, namespace).key
                    self.instance.report_runless_asset_event(observation(self.warehouse, sync, bucket, key))

    def _run_batches(self) -> None:
        while waves := claim_waves(self.warehouse, self.plan, wave_items=_WAVE_ITEMS):
            for run_key, claims in waves:
                pipeline = self.plan.pipeline_of[claims[0].collection_ids[0]]
                keys = [one.part.partition_key for one in claims]
                self.instance.add_dynamic_partitions(self.translator.partitions(pipeline).name or "", keys)
                self.watcher.started(sum(one.items for one in claims))
                tags = {**wave_tags(claims), RUN_KEY_TAG: run_key, PROCESS_TAG: self.warehouse.owner}
                self.jobs[pipeline].execute_in_process(
                    instance=self.instance,
                    partition_key=keys[0] if len(keys) == 1 else None,
                    asset_selection=selection(claims, self.plan, self.translator),
                    tags=tags,
                    run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
                    raise_on_error=False,
                )
                self._collect({one.part.batch_id for one in claims})

    def _collect(self, batch_ids: set[BatchId]) -> None:
        reconcile(self.warehouse, lambda part: run_state(self.instance, part))
        with self.warehouse.catalog.reading() as records:
            ended = [batch for one in sorted(batch_ids) if (batch := records.batches.get(one)).status.is_terminal]
        self.report.batches += ended


def is_dead(process: str) -> bool:
    """Whether `host:pid`, or `host:pid/…`, names a process of this machine that is gone; of other machines nothing is known."""
    host, _, pid = process.partition("/")[0].rpartition(":")
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, ValueError):
        return False
    return False
