"""The main job on real files: a folder and an S3 bucket become searchable documents. `make demo` runs it; run it twice.

State is kept in `.mixpeek/`, so a second run finds everything registered and infers nothing. The S3 server is a real one (SeaweedFS)
that runs, and keeps its files, while the demo does.
"""

import os
import sys
import tempfile
from pathlib import Path

from rich.console import Console

os.environ.setdefault("MIXPEEK_ALLOWED_HOSTS", "127.0.0.1")  # the S3 server below is on this machine

from mixpeek_dagster.cli.dagster_home import prepare_dagster_home
from mixpeek_dagster.cli.documents import search
from mixpeek_dagster.cli.passes import pass_once, summarise
from mixpeek_dagster.models.syncs import SyncStatus
from mixpeek_dagster.pipeline.manifest import Manifest, apply, read_manifest
from mixpeek_dagster.pipeline.warehouse import Warehouse
from tests.servers import S3Server, running_seaweedfs, s3_client

HERE = Path(__file__).parent
LIBRARY = HERE / "library"
BUCKET = "library"
EXPECTED_FAILURES = len(list((LIBRARY / "broken").iterdir()))
console = Console()


def main() -> int:
    warehouse = Warehouse.from_env()
    prepare_dagster_home(warehouse.settings)
    files = sum(1 for file in LIBRARY.rglob("*") if file.is_file())

    console.rule("1. A folder")
    console.print(f"{files} files in examples/library: texts, photographs, clip art, and {EXPECTED_FAILURES} broken ones.")
    apply(warehouse, read_manifest(HERE / "warehouse.yaml"))
    folder = pass_once(warehouse)
    summarise(warehouse, folder)

    console.rule("2. The same files in an S3 bucket")
    with (
        tempfile.TemporaryDirectory(prefix="mixpeek-demo-") as folder_of_server,
        running_seaweedfs(Path(folder_of_server)) as server,
    ):
        _upload(server)
        namespace = apply(warehouse, _s3_manifest(server)).namespace
        _resume_s3(warehouse, server)
        objects = pass_once(warehouse)
        summarise(warehouse, objects)
        console.print(
            "The texts and pictures are those of the folder: they were recognised by their content and not inferred again."
        )
        _pause_s3(warehouse)

    console.rule("3. Ask it something")
    query = "a wolf that turns into a man at night"
    console.print(f"[bold]{query}[/]")
    search(query, namespace=namespace.namespace_id, collection=["passages"], limit=3)
    console.print("[bold]a cut-out of a photograph[/] (images/crops/cat-crop.jpg)")
    search(f"@{LIBRARY / 'images/crops/cat-crop.jpg'}", namespace=namespace.namespace_id, collection=["pictures"], limit=3)

    console.rule("4. Again")
    again = pass_once(warehouse)
    summarise(warehouse, again)
    quiet = not (again.batches or again.counters.new or again.counters.changed or again.counters.deleted)
    console.print("Nothing changed, and nothing was done." if quiet else "[red]Something was done although nothing changed.[/]")

    console.print("\nSee it all in the Dagster UI: [bold]make dev[/], then http://127.0.0.1:3000")
    console.print(
        "Prove it: [bold].venv/bin/mixpeek-dagster verify[/]. Explain a document: [bold]mixpeek-dagster explain doc_…[/]"
    )
    failed = sum(batch.failed_count for report in (folder, objects) for batch in report.batches)
    done = all(batch.status == "COMPLETED" for report in (folder, objects) for batch in report.batches)
    return 0 if quiet and done and failed in (0, EXPECTED_FAILURES, 2 * EXPECTED_FAILURES) else 1


def _upload(server: S3Server) -> None:
    """Put the files into a new bucket. On a later run they are newer but no other files: sizes and ETags are the same."""
    client = s3_client(server)
    client.create_bucket(Bucket=BUCKET)
    for file in sorted(LIBRARY.rglob("*")):
        if file.is_file():
            client.put_object(Bucket=BUCKET, Key=file.relative_to(LIBRARY).as_posix(), Body=file.read_bytes())


def _s3_manifest(server: S3Server) -> Manifest:
    """The second bucket, of the same shape, and collections over it with the same extractors."""
    first = read_manifest(HERE / "warehouse.yaml")
    schema = first.buckets["files"].bucket_schema
    sync = {
        "provider": "s3",
        "connection": {
            "bucket_name": BUCKET,
            "region": server.region,
            "endpoint_url": server.url,
            "credentials": {"access_key_id": server.access_key_id, "secret_access_key": server.secret_access_key},
        },
        "sync_config": {"source_path": "/", "sync_mode": "incremental", "polling_interval": 60},
    }
    collections = {
        f"{name}-s3": {**body, "source": {"type": "bucket", "bucket_ids": ["files-s3"]}}
        for name, body in first.collections.items()
    }
    return Manifest.model_validate(
        {
            "namespace": first.namespace,
            "buckets": {"files-s3": {"schema": schema, "syncs": {"seaweedfs": sync}}},
            "collections": collections,
        }
    )


def _resume_s3(warehouse: Warehouse, server: S3Server) -> None:
    """A later run of the demo finds the S3 server on another port."""
    with warehouse.catalog.transaction() as records:
        for sync in records.syncs.all():
            if sync.provider == "s3":
                connection, secrets = records.syncs.connection(sync.connection_id)
                moved = connection.model_copy(update={"updated_at": warehouse.now()})
                body = {**connection.config, "endpoint_url": server.url}
                records.syncs.put_connection(moved, body=body, secrets=secrets)
                records.syncs.set(sync.sync_id, now=warehouse.now(), status=SyncStatus.ACTIVE)


def _pause_s3(warehouse: Warehouse) -> None:
    """Its server ends with the demo: a sensor that went on polling would only fail."""
    with warehouse.catalog.transaction() as records:
        for sync in records.syncs.all():
            if sync.provider == "s3":
                records.syncs.set(sync.sync_id, now=warehouse.now(), status=SyncStatus.SUSPENDED)


if __name__ == "__main__":
    sys.exit(main())
