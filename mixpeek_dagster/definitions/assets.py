"""Buckets as observable source assets, collections as partitioned assets."""

import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, cast

import dagster as dg

from mixpeek_dagster.definitions.metadata import bucket_metadata, step_metadata
from mixpeek_dagster.definitions.plan import NamespacePlan
from mixpeek_dagster.definitions.resources import WarehouseResource
from mixpeek_dagster.definitions.stopping import end_as_canceled
from mixpeek_dagster.definitions.translator import Translator
from mixpeek_dagster.errors import MixpeekError, ProviderError, Transient
from mixpeek_dagster.models.batches import PartStatus, Step
from mixpeek_dagster.models.buckets import Bucket
from mixpeek_dagster.models.collections import Collection
from mixpeek_dagster.models.ids import SyncId
from mixpeek_dagster.pipeline.batches import Superseded, fail_part, failure_words
from mixpeek_dagster.pipeline.extraction import StepReport, run_step
from mixpeek_dagster.pipeline.sync_reports import report_of
from mixpeek_dagster.pipeline.syncs import Progress, advance
from mixpeek_dagster.pipeline.warehouse import Warehouse

# Observing in the UI needs it; it has been "beta" since 2024 and its warning would be the first thing every user reads.
warnings.filterwarnings("ignore", message=".*multi_observable_source_asset.*", category=dg.BetaWarning)

POOL = "inference"
PARTS_TAG = "mixpeek/parts"
CHECK = "every_input_extracted"
_PASS_S = 3600.0
_LOG_EVERY_S = 5.0


def bucket_asset(plan: NamespacePlan, bucket: Bucket, translator: Translator) -> dg.AssetsDefinition:
    """The bucket as something Dagster can observe: its Observe button makes one pass of each of its syncs, now."""
    spec = translator.get_asset_spec(bucket, plan)
    sync_ids = [SyncId(sync.sync_id) for sync in plan.syncs if sync.bucket_id == bucket.bucket_id]

    @dg.multi_observable_source_asset(name=translator.op_name(bucket), specs=[spec])  # type: ignore[untyped-decorator]
    def observe(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> Iterator[dg.ObserveResult]:
        world = warehouse.get()
        passes = [progress for sync_id in sync_ids if (progress := _whole_pass(context, world, sync_id)) is not None]
        with world.catalog.reading() as records:
            now = records.buckets.get(bucket.bucket_id, namespace_id=bucket.namespace_id)
            reports = [report_of(records, records.syncs.get(sync_id)) for sync_id in sync_ids]
        metadata, version = bucket_metadata(now, reports)
        yield dg.ObserveResult(asset_key=spec.key, metadata=metadata, data_version=dg.DataVersion(version))
        errors = [progress.error for progress in passes if progress.error]
        if errors:
            raise ProviderError("; ".join(errors))

    return cast(dg.AssetsDefinition, observe)


def _whole_pass(context: dg.AssetExecutionContext, warehouse: Warehouse, sync_id: SyncId) -> Progress | None:
    progress = advance(warehouse, sync_id, budget_s=_PASS_S, force=True)
    if progress is None:
        context.log.info(f"{sync_id} is paused, or another process is making a pass of it right now.")
    return progress


def collection_asset(
    plan: NamespacePlan, collection: Collection, partitions: dg.PartitionsDefinition[str], translator: Translator
) -> dg.AssetsDefinition:
    """The collection over the parts of batches; one run may take several parts."""
    spec = translator.get_asset_spec(collection, plan)

    @dg.multi_asset(
        name=translator.op_name(collection),
        specs=[spec],
        check_specs=[dg.AssetCheckSpec(CHECK, asset=spec.key, description="Every input of the batch made its documents.")],
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=POOL,
    )
    def extract(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> Iterator[Any]:
        keys = _partition_keys(context)
        done = _run_parts(context, warehouse.get(), keys, collection)
        for key, report in done.items():
            metadata = step_metadata(collection, report, thumbnails=len(keys) == 1)
            if len(keys) == 1:
                yield dg.MaterializeResult(asset_key=spec.key, metadata=metadata)
            else:
                yield dg.AssetMaterialization(spec.key, partition=key, metadata=metadata)
        if len(keys) > 1:
            yield dg.MaterializeResult(asset_key=spec.key)
        yield _check(list(done.values()))

    return extract


def _check(reports: Sequence[StepReport]) -> dg.AssetCheckResult:
    """Warns when inputs failed; whether the batch failed is decided by the share of them."""
    failed, inputs = sum(one.step.failed for one in reports), sum(one.step.inputs for one in reports)
    return dg.AssetCheckResult(
        check_name=CHECK, passed=failed == 0, severity=dg.AssetCheckSeverity.WARN, metadata={"failed": failed, "inputs": inputs}
    )


def _partition_keys(context: dg.AssetExecutionContext) -> Sequence[str]:
    """The parts of this run, counted: a range whose ends are swapped would quietly be empty."""
    keys = list(context.partition_keys)
    expected = context.run.tags.get(PARTS_TAG)
    if not keys or (expected is not None and len(keys) != int(expected)):
        raise dg.Failure(
            f"This run was to take {expected or 'some'} parts and sees {len(keys)}: {keys[:3]}.", allow_retries=False
        )
    return keys


def _run_parts(
    context: dg.AssetExecutionContext, warehouse: Warehouse, keys: Sequence[str], collection: Collection
) -> dict[str, StepReport]:
    """Partition key → what became of it, without parts that were canceled.

    Raises:
        Superseded: none of them is this run's any more.
    """
    done: dict[str, StepReport] = {}
    for key in keys:
        try:
            done[key] = _run_part(context, warehouse, key, collection)
        except Superseded as reason:
            context.log.warning(str(reason))
            if len(done) == 0 and key == keys[-1]:
                if _is_canceled(warehouse, key):
                    end_as_canceled(context)
                raise
    return done


def _is_canceled(warehouse: Warehouse, key: str) -> bool:
    with warehouse.catalog.reading() as records:
        part = records.batches.part(key)
    return part is not None and part.status is PartStatus.CANCELED


def _run_part(context: dg.AssetExecutionContext, warehouse: Warehouse, key: str, collection: Collection) -> StepReport:
    logged = time.monotonic()

    def progress(step: Step) -> None:
        nonlocal logged
        warehouse.progress(step)
        if time.monotonic() - logged < _LOG_EVERY_S:
            return
        logged = time.monotonic()
        context.log.info(
            f"{key}: {step.inputs} inputs, {step.documents} documents, {step.inferred} inferred, {step.failed} failed"
        )

    try:
        return run_step(warehouse, key, collection, run_id=context.run_id, progress=progress)
    except Superseded:
        raise
    except MixpeekError as error:
        _, words = failure_words(error)
        with warehouse.catalog.transaction() as records:
            part = records.batches.part(key)
            if part is not None:
                fail_part(
                    records, part, words, settings=warehouse.settings, now=warehouse.now(), retry=isinstance(error, Transient)
                )
        raise
