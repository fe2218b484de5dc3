"""From a plan to Dagster definitions. Pure: reads nothing, writes nothing."""

import threading
from typing import Any

import dagster as dg

from mixpeek_dagster.definitions.assets import bucket_asset, collection_asset
from mixpeek_dagster.definitions.confirmation import confirm_job
from mixpeek_dagster.definitions.plan import WarehousePlan
from mixpeek_dagster.definitions.reload import reload_sensor
from mixpeek_dagster.definitions.resources import WarehouseResource
from mixpeek_dagster.definitions.sensors import Jobs, sensors
from mixpeek_dagster.definitions.translator import Translator, job_names


def build_jobs(plan: WarehousePlan, translator: Translator) -> Jobs:
    """Pipeline → the job that runs its batches, all tiers in one process."""
    jobs: dict[str, Any] = {}
    for namespace in plan.namespaces:
        names = job_names(translator, namespace)
        for pipeline, collections in namespace.pipelines.items():
            keys = [translator.get_asset_spec(collection, namespace).key for collection in collections]
            jobs[pipeline] = dg.define_asset_job(
                names[pipeline],
                selection=dg.AssetSelection.assets(*keys),
                partitions_def=translator.partitions(pipeline),
                executor_def=dg.in_process_executor,
                description=f"Batches through {', '.join(collection.collection_name for collection in collections)}.",
            )
    return jobs


def build_definitions(
    plan: WarehousePlan, *, warehouse: WarehouseResource | None = None, translator: Translator | None = None
) -> dg.Definitions:
    """Assets, jobs, sensors and the resource for everything in the plan; with a plan from the catalog, they follow the catalog."""
    translator = translator or Translator()
    assets = []
    for namespace in plan.namespaces:
        assets += [bucket_asset(namespace, bucket, translator) for bucket in namespace.buckets]
        for pipeline, collections in namespace.pipelines.items():
            partitions = translator.partitions(pipeline)
            assets += [collection_asset(namespace, collection, partitions, translator) for collection in collections]
    jobs = build_jobs(plan, translator)
    retiring = threading.Event()
    every = list(sensors(plan, jobs, translator, retiring=retiring))
    if plan.revision:

        def build(fresh: WarehousePlan) -> dg.Definitions:
            return build_definitions(fresh, warehouse=warehouse, translator=translator)

        every.append(reload_sensor(plan, build, retiring=retiring))
    return dg.Definitions(
        assets=assets,
        jobs=[*jobs.values(), confirm_job()],
        sensors=every,
        resources={"warehouse": warehouse or WarehouseResource()},
        executor=dg.in_process_executor,
    )
