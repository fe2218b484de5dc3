"""A file that kills every process which extracts it costs nothing but its own documents."""

import signal
from pathlib import Path

from mixpeek_dagster.models.batches import BatchStatus
from mixpeek_dagster.models.objects import ObjectStatus
from tests.end_to_end.home import STUB, Home

DEADLY = "tests.end_to_end.deadly:DeadlyExtractor"


def test_a_segmentation_fault_in_a_later_tier_takes_one_document(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.env["MIXPEEK_PLUGIN_MODULES"] += ",tests.end_to_end.deadly"
    for number in range(12):
        (home.files / f"{number}.txt").write_text(f"{'poison' if number == 2 else 'text'} {number}")
    source = {"provider": "local", "sync_config": {"source_path": str(home.files), "sync_mode": "initial_only"}}
    stub = {"version": "v1", "input_mappings": {"text": "content"}}
    home.apply(
        {
            "namespace": "deadly",
            "buckets": {"files": {"schema": {"properties": {"content": {"type": "text"}}}, "syncs": {"disk": source}}},
            "collections": {
                "passages": {
                    "source": {"type": "bucket", "bucket_ids": ["files"]},
                    "feature_extractor": {**stub, "feature_extractor_name": STUB},
                },
                "top": {
                    "source": {"type": "collection", "collection_ids": ["passages"]},
                    "feature_extractor": {**stub, "feature_extractor_name": DEADLY, "parameters": {"fail_on": "never"}},
                },
            },
        }
    )
    runs = [home.command("run", check=False)]
    while runs[-1].returncode == -signal.SIGSEGV and len(runs) < 12:
        runs.append(home.command("run", check=False))
    said = runs[-1].stdout + runs[-1].stderr
    assert [one.returncode for one in runs] == [-signal.SIGSEGV] * 6 + [1], said  # the last one says that an object failed
    assert "1 of 1 completed; 23 documents" in said
    with home.warehouse.catalog.reading() as records:
        (batch,) = records.batches.page(limit=10)[0]
        ((failure,), _) = records.batches.failures(batch.batch_id)
        counts = {one.collection_name: one.document_count for one in records.collections.all()}
        objects = records.objects.named(records.objects.ids_in_bucket(str(batch.bucket_id)))  # type: ignore[arg-type]
    assert (batch.status, counts) == (BatchStatus.COMPLETED, {"passages": 12, "top": 11})
    assert {one.fields["path"]: one.status for one in objects.values()} == {
        f"{number}.txt": ObjectStatus.FAILED if number == 2 else ObjectStatus.COMPLETED for number in range(12)
    }
    assert failure.item_id in str(objects[failure.object_id].error)  # type: ignore[index]
