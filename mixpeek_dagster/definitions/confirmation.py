"""The job by which a person at the Dagster UI allows the deletes that a sync holds back because they are too many to be believed."""

import dagster as dg
from pydantic import Field

from mixpeek_dagster.definitions.resources import WarehouseResource
from mixpeek_dagster.errors import MixpeekError
from mixpeek_dagster.pipeline.sync_control import confirm_deletes

CONFIRM_JOB = "confirm_deletes"


class Confirmation(dg.Config):
    """Which sync's deletes to allow."""

    sync_id: str = Field(description="The sync, as the bucket's observation names it (sync_…).")


@dg.op(name="confirm", description="Allows the deletes that the sync's last pass held back; its next pass makes them.")
def _confirm(context: dg.OpExecutionContext, config: Confirmation, warehouse: WarehouseResource) -> None:
    world = warehouse.get()
    try:
        with world.catalog.transaction() as records:
            held = confirm_deletes(records, records.syncs.get(config.sync_id), now=world.now())
    except MixpeekError as error:
        raise dg.Failure(description=error.message, allow_retries=False) from error
    context.log.info(f"{config.sync_id}: the next pass deletes up to {held} objects.")
    context.add_output_metadata({"sync": config.sync_id, "held": held})


def confirm_job() -> dg.JobDefinition:
    """Launched from its Launchpad with `ops: {confirm: {config: {sync_id: sync_…}}}`."""

    @dg.job(name=CONFIRM_JOB, executor_def=dg.in_process_executor, description="Confirm held deletes of one sync.")
    def confirm() -> None:
        _confirm()

    return confirm
