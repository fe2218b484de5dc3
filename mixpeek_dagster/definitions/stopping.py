"""End the runs of canceled batches.

A cancel is recorded in the catalog, by whoever was asked; this looks for runs that still work for what was canceled. A run that other
batches share goes on without the canceled part. Where this comes too late or cannot reach the run, the run finds out itself when it
next records something.
"""

import dagster as dg

from mixpeek_dagster.models.batches import BatchPart
from mixpeek_dagster.pipeline.reconcile import GRACE_S
from mixpeek_dagster.pipeline.warehouse import Warehouse

RUN_KEY_TAG = "dagster/run_key"
_ENDING = (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED)


def find_run(instance: dg.DagsterInstance, part: BatchPart) -> dg.DagsterRun | None:
    """The run of a part: by its id once it has begun, before that by the key it was asked for under."""
    run = instance.get_run_by_id(part.run_id) if part.run_id else None
    if run is None and part.run_key:
        runs = instance.get_runs(dg.RunsFilter(tags={RUN_KEY_TAG: part.run_key}), limit=1)
        run = runs[0] if runs else None
    return run


def stop_canceled(warehouse: Warehouse, instance: dg.DagsterInstance) -> int:
    """Terminate, or take out of Dagster's queue, every run whose parts were all canceled; how many runs were told to end."""
    with warehouse.catalog.reading() as records:
        canceled = records.runs.to_stop()
        shared = records.runs.still_wanted(list(canceled))
    settled, told = [], 0
    late = warehouse.now(plus_s=-GRACE_S)
    for run_key, part in canceled.items():
        run = find_run(instance, part)
        if run is None:
            if (part.claimed_at or "") <= late:  # else Dagster may still be about to create it
                settled.append(run_key)
        elif run.is_finished:
            settled.append(run_key)
        elif run_key not in shared and run.status not in _ENDING:
            told += bool(instance.run_coordinator.cancel_run(run.run_id))
    if settled:
        with warehouse.catalog.transaction() as records:
            records.runs.stopped(settled)
    return told


def end_as_canceled(context: dg.AssetExecutionContext) -> None:
    """Let the run this is called in end as CANCELED: it is about to fail because its batch was canceled."""
    context.instance.report_run_canceling(context.run, message="Its batch was canceled.")
