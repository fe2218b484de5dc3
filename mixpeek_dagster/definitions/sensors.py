"""Sensors: one per sync that polls it, those that hand queued batches to runs, those that settle how runs ended, and webhooks."""

import threading
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import dagster as dg

from mixpeek_dagster.catalog.batches import Claim
from mixpeek_dagster.definitions.assets import PARTS_TAG
from mixpeek_dagster.definitions.feeds import feed_sensor
from mixpeek_dagster.definitions.metadata import bucket_metadata
from mixpeek_dagster.definitions.plan import NamespacePlan, SyncPlan, WarehousePlan
from mixpeek_dagster.definitions.resources import WarehouseResource
from mixpeek_dagster.definitions.stopping import RUN_KEY_TAG, find_run, stop_canceled
from mixpeek_dagster.definitions.ticks import looks
from mixpeek_dagster.definitions.translator import Translator
from mixpeek_dagster.errors import NotFound, words_of
from mixpeek_dagster.models.batches import BatchPart
from mixpeek_dagster.models.buckets import Bucket
from mixpeek_dagster.models.ids import SyncId
from mixpeek_dagster.models.syncs import Phase
from mixpeek_dagster.pipeline.batches import claim
from mixpeek_dagster.pipeline.reconcile import RunState, reconcile, run_ended
from mixpeek_dagster.pipeline.sync_reports import SyncReport, report_of
from mixpeek_dagster.pipeline.syncs import Progress, advance
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.pipeline.webhooks import Told, deliver

Jobs = Mapping[str, Any]
"""Pipeline → asset job; Dagster does not export the type of one that is not resolved yet."""

_TICK_S = 20.0
_POLL_S = 0.2
_LOOK_S = 1.0
_STOP_EVERY_S = 1.0
_CLAIM_LIMIT = 200
_WAVE_ITEMS = 2_000
# The daemon's loop is fixed at five seconds and skips a sensor whose interval is not shorter: any of 1..4 means every loop.
_EVERY_LOOP_S = 4
# A sync's own sensor only has to be in time for its interval. A tick costs a fifth of a CPU second, whatever it finds.
_OFTEN_S, _SELDOM_S = 60, 29
_UNHURRIED_S = 19  # every fourth loop: a good end is recorded by the run itself, only the others wait for these

_STATES: Mapping[dg.DagsterRunStatus, RunState] = {
    dg.DagsterRunStatus.SUCCESS: RunState.SUCCEEDED,
    dg.DagsterRunStatus.FAILURE: RunState.FAILED,
    dg.DagsterRunStatus.CANCELED: RunState.CANCELED,
}


def sync_sensor(plan: NamespacePlan, sync: SyncPlan, translator: Translator) -> dg.SensorDefinition:
    """Polls one sync. A tick works for at most about 20 s, saves its place, and goes on in the next."""
    bucket = plan.bucket_of(sync)
    key = translator.get_asset_spec(bucket, plan).key

    @dg.sensor(
        name=translator.sensor_name(sync, plan),
        asset_selection=dg.AssetSelection.assets(key),
        minimum_interval_seconds=_EVERY_LOOP_S if sync.polling_interval_seconds < _OFTEN_S else _SELDOM_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"{sync.provider} {sync.source_path}: {sync.mode.value}, every {sync.polling_interval_seconds} s.",
        metadata={
            "sync": sync.sync_id,
            "provider": sync.provider,
            "source": sync.source_path,
            "polling_interval_seconds": sync.polling_interval_seconds,
        },
    )
    def poll(warehouse: WarehouseResource) -> dg.SensorResult | dg.SkipReason:
        try:
            return _poll(warehouse.get(), sync, bucket, key)
        except NotFound:
            return dg.SkipReason(f"Sync {sync.sync_id} was deleted.")

    return poll


def _poll(warehouse: Warehouse, sync: SyncPlan, bucket: Bucket, key: dg.AssetKey) -> dg.SensorResult | dg.SkipReason:
    progress = advance(warehouse, SyncId(sync.sync_id), budget_s=_TICK_S)
    if progress is None:
        with warehouse.catalog.reading() as records:
            return dg.SkipReason(_why_not(report_of(records, records.syncs.get(sync.sync_id))))
    if progress.error is not None and not progress.finished:
        raise RuntimeError(progress.error)
    if not progress.finished:
        return dg.SkipReason(f"Listed {progress.counters.listed} files so far; the pass goes on in the next tick.")
    return dg.SensorResult(asset_events=[observation(warehouse, sync, bucket, key)])


def observation(warehouse: Warehouse, sync: SyncPlan, bucket: Bucket, key: dg.AssetKey) -> dg.AssetObservation:
    """What a sync's pass found, for the page of its bucket."""
    with warehouse.catalog.reading() as records:
        report = report_of(records, records.syncs.get(sync.sync_id))
        state = records.buckets.get(bucket.bucket_id, namespace_id=bucket.namespace_id)
    metadata, version = bucket_metadata(state, [report])
    return dg.AssetObservation(key, metadata=metadata, tags={"dagster/data_version": version})


def urgent_syncs_sensor(plan: WarehousePlan, translator: Translator, *, retiring: threading.Event) -> dg.SensorDefinition:
    """Waits for syncs that cannot wait for their own sensor: passes that were asked for, passes under way, and syncs that were made
    since this plan was read, which have a sensor only when the code location was reloaded."""
    planned = {
        SyncId(sync.sync_id): (sync, bucket, translator.get_asset_spec(bucket, namespace).key)
        for namespace in plan.namespaces
        for sync in namespace.syncs
        for bucket in [namespace.bucket_of(sync)]
    }

    @dg.sensor(
        name="urgent_syncs",
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Begins passes that were asked for and those of new syncs, and goes on with passes under way.",
    )
    def poll(context: dg.SensorEvaluationContext, warehouse: WarehouseResource) -> dg.SensorResult | dg.SkipReason:
        world = warehouse.get()
        worked: list[SyncId] = []
        observed: list[dg.AssetObservation] = []
        failed: dict[SyncId, str] = {}
        for left in looks(retiring, every_s=_LOOK_S):
            deadline = time.monotonic() + left
            for sync_id in _urgent(world, planned):
                if sync_id in failed:
                    continue
                try:
                    progress = _advanced(world, sync_id, deadline)
                    if progress is None:
                        continue
                    worked.append(sync_id)
                    if progress.finished and sync_id in planned:
                        observed.append(observation(world, *planned[sync_id]))
                except Exception as error:  # the other syncs do not wait for it
                    failed[sync_id] = f"Sync {sync_id}: {words_of(error)}"
                    context.log.error(failed[sync_id], exc_info=error)
            if observed:
                return dg.SensorResult(asset_events=observed)
        if failed:
            raise RuntimeError("; ".join(failed.values()))
        return dg.SkipReason(f"Worked on {', '.join(dict.fromkeys(worked))}." if worked else "No pass was asked for.")

    return poll


def _urgent(warehouse: Warehouse, planned: Container[SyncId]) -> list[SyncId]:
    with warehouse.catalog.reading() as records:
        due = records.syncs.due(now=warehouse.now())
    return [
        SyncId(one.sync_id)
        for one in due
        if one.triggered_at or one.cursor.phase is not Phase.IDLE or SyncId(one.sync_id) not in planned
    ]


def _advanced(warehouse: Warehouse, sync_id: SyncId, deadline: float) -> Progress | None:
    try:
        return advance(warehouse, sync_id, budget_s=max(deadline - time.monotonic(), 0.0))
    except NotFound:  # deleted since
        return None


def _why_not(report: SyncReport) -> str:
    sync = report.sync
    if sync.next_pass_at is None:
        return f"The sync is {sync.status}: no pass is planned. {report.words}"
    wait = (datetime.fromisoformat(sync.next_pass_at) - datetime.now().astimezone()).total_seconds()
    error = f" Last error: {sync.last_error}" if sync.last_error else ""
    return f"Next pass in {max(wait, 0):.0f} s. {report.words}{error}"


def batch_sensor(
    plan: WarehousePlan, jobs: Jobs, translator: Translator, *, name: str, retiring: threading.Event
) -> dg.SensorDefinition:
    """Hands queued batches to runs: waits up to 19 s inside its tick, so a submitted batch is seen within 0.2 s.

    Batches that are waiting together, small enough, and in need of the same collections share one run. While it waits it also
    ends the runs of batches that were canceled.
    """

    @dg.sensor(
        name=name,
        jobs=list(jobs.values()) or None,
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Claims queued batches and starts their runs.",
    )
    def hand_out(context: dg.SensorEvaluationContext, warehouse: WarehouseResource) -> dg.SensorResult | dg.SkipReason:
        world = warehouse.get()
        next_stop = 0.0
        for _ in looks(retiring, every_s=_POLL_S):
            if time.monotonic() >= next_stop:
                stop_canceled(world, context.instance)
                next_stop = time.monotonic() + _STOP_EVERY_S
            waves = claim_waves(world, plan)
            if waves or not jobs:
                break
        if not waves:
            handing_over = "This code server hands over to the one that is being loaded."
            return dg.SkipReason(handing_over if retiring.is_set() else "No batch is queued.")
        requests, partitions = [], []
        for run_key, claims in waves:
            pipeline = plan.pipeline_of[claims[0].collection_ids[0]]
            keys = [one.part.partition_key for one in claims]
            partitions.append(translator.partitions(pipeline).build_add_request(keys))
            requests.append(_request(run_key, claims, plan, jobs[pipeline], translator))
        return dg.SensorResult(run_requests=requests, dynamic_partitions_requests=partitions)

    return hand_out


def claim_waves(warehouse: Warehouse, plan: WarehousePlan, *, wave_items: int = _WAVE_ITEMS) -> list[tuple[str, list[Claim]]]:
    """Claim what is queued, grouped into runs: (run key, parts). A retried part, and a large one, gets a run of its own.

    Args:
        wave_items: how many objects may share a run; more of them wait less, fewer spread over more processes.
    """
    with warehouse.catalog.reading() as records:
        if not records.batches.has_queued():
            return []
    with warehouse.catalog.transaction() as records:
        claims = claim(
            records,
            limit=_CLAIM_LIMIT,
            now=warehouse.now(),
            accepts=lambda ids: bool(ids) and all(one in plan.pipeline_of for one in ids),
        )
        waves: list[list[Claim]] = []
        open_waves: dict[tuple[str, ...], list[Claim]] = {}
        for one in claims:
            wave = open_waves.get(tuple(one.collection_ids))
            joins = one.part.attempt == 1 and wave is not None and sum(c.items for c in wave) + one.items <= wave_items
            if wave is not None and joins:
                wave.append(one)
                continue
            waves.append([one])
            if one.part.attempt == 1:
                open_waves[tuple(one.collection_ids)] = waves[-1]
        keyed = [(f"{wave[0].part.partition_key}:{wave[0].part.attempt}", wave) for wave in waves]
        for run_key, wave in keyed:
            records.batches.set_run_key([one.part for one in wave], run_key)
    return keyed


def wave_tags(claims: Sequence[Claim]) -> dict[str, str]:
    """Tags of a run over these parts. Several are a range: their keys were added in this order, in one request."""
    tags = {"mixpeek/namespace": claims[0].namespace_id, PARTS_TAG: str(len(claims)), "mixpeek/batch": claims[0].part.batch_id}
    if len(claims) > 1:
        tags["dagster/asset_partition_range_start"] = claims[0].part.partition_key
        tags["dagster/asset_partition_range_end"] = claims[-1].part.partition_key
    return tags


def selection(claims: Sequence[Claim], plan: WarehousePlan, translator: Translator) -> list[dg.AssetKey] | None:
    """The asset keys of the collections these parts materialise; None for the whole pipeline: cutting a job down costs a second."""
    wanted = set(claims[0].collection_ids)
    pipeline = plan.pipeline_of[claims[0].collection_ids[0]]
    if wanted == {one for one, name in plan.pipeline_of.items() if name == pipeline}:
        return None
    return [
        translator.get_asset_spec(collection, namespace).key
        for namespace in plan.namespaces
        for collection in namespace.collections
        if collection.collection_id in wanted
    ]


def _request(run_key: str, claims: Sequence[Claim], plan: WarehousePlan, job: Any, translator: Translator) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=run_key,
        job_name=job.name,
        partition_key=claims[0].part.partition_key if len(claims) == 1 else None,
        asset_selection=selection(claims, plan, translator),
        tags=wave_tags(claims),
    )


def ended_sensor(status: dg.DagsterRunStatus) -> dg.SensorDefinition:
    """Settles parts whose run failed or was canceled: the run itself records only a good end."""

    @dg.run_status_sensor(
        run_status=status,
        name=f"runs_{status.value.lower()}",
        minimum_interval_seconds=_UNHURRIED_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Settles the batches of runs that ended as {status.value}.",
    )
    def settle(context: dg.RunStatusSensorContext, warehouse: WarehouseResource) -> None:
        run = context.dagster_run
        message = context.dagster_event.message or f"Run {run.run_id} ended as {status.value}."
        run_ended(warehouse.get(), run.run_id, run.tags.get(RUN_KEY_TAG), _STATES[status], message)

    return settle


def reconcile_sensor() -> dg.SensorDefinition:
    """Every 30 s: settle parts whose run is gone without a word, heal documents between catalog and index, drop unused features."""

    @dg.sensor(
        name="reconcile",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Settles batches whose run vanished and heals what a crash left half done.",
    )
    def heal(context: dg.SensorEvaluationContext, warehouse: WarehouseResource) -> dg.SkipReason:
        stop_canceled(warehouse.get(), context.instance)
        done = reconcile(warehouse.get(), lambda part: run_state(context.instance, part))
        return dg.SkipReason(done.words)

    return heal


def webhook_sensor(retiring: threading.Event) -> dg.SensorDefinition:
    """Waits for events, and for deliveries whose turn to be tried again has come."""

    @dg.sensor(
        name="webhooks",
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Delivers events to webhooks, signed, until they are taken.",
    )
    def tell(warehouse: WarehouseResource) -> dg.SkipReason:
        for _ in looks(retiring, every_s=_LOOK_S):
            told = deliver(warehouse.get())
            if told != Told():
                break
        return dg.SkipReason(told.words)

    return tell


def run_state(instance: dg.DagsterInstance, part: BatchPart) -> RunState:
    """How the run of a part is doing, as Dagster's own records say."""
    run = find_run(instance, part)
    return RunState.UNKNOWN if run is None else _STATES.get(run.status, RunState.ALIVE)


def sensors(
    plan: WarehousePlan, jobs: Jobs, translator: Translator, *, retiring: threading.Event
) -> Iterator[dg.SensorDefinition]:
    """Every sensor of the code location."""
    for namespace in plan.namespaces:
        for sync in namespace.syncs:
            yield sync_sensor(namespace, sync, translator)
    if plan.revision:
        yield urgent_syncs_sensor(plan, translator, retiring=retiring)
    # Two, since the one that has just handed out a batch is away until the daemon's next loop, up to five seconds.
    for name in ("batches", "batches_too"):
        yield batch_sensor(plan, jobs, translator, name=name, retiring=retiring)
    yield ended_sensor(dg.DagsterRunStatus.FAILURE)
    yield ended_sensor(dg.DagsterRunStatus.CANCELED)
    if any(sync.provider != "local" for namespace in plan.namespaces for sync in namespace.syncs):
        yield feed_sensor(retiring)  # folders have no change feed
    yield reconcile_sensor()
    yield webhook_sensor(retiring)
