"""What a person sees of a pass, a part or a bucket in the Dagster UI."""

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import dagster as dg

from mixpeek_dagster.definitions.confirmation import CONFIRM_JOB
from mixpeek_dagster.models.buckets import Bucket
from mixpeek_dagster.models.collections import Collection
from mixpeek_dagster.pipeline.extraction import StepReport
from mixpeek_dagster.pipeline.sync_reports import SyncReport

_CELL = 160


def bucket_metadata(bucket: Bucket, reports: Sequence[SyncReport]) -> tuple[dict[str, Any], str]:
    """An observation's metadata: what a person asks about the bucket's syncs, in numbers that plot; and the bucket's data version.

    Of several syncs the numbers are added up, and the rest is a table with a row for each.
    """
    facts = [report.facts for report in reports]
    metadata: dict[str, Any] = {
        "objects": bucket.object_count,
        "bytes": bucket.total_size_bytes,
        "dagster/row_count": bucket.object_count,
    }
    names = list(dict.fromkeys(name for one in facts for name in one))
    for name in names:
        values = [one[name] for one in facts if name in one]
        numbers = [value for value in values if not isinstance(value, str)]
        if numbers:
            metadata[name] = round(sum(numbers), 3)
        elif len(facts) == 1:
            metadata[name] = _shown(name, str(values[0]))
    if len(facts) > 1:
        rows = [dg.TableRecord({name: one.get(name) for name in names}) for one in facts]
        metadata["syncs"] = dg.MetadataValue.table(records=rows)
    held = [report.sync.sync_id for report in reports if report.counters.held]
    if held:
        how = "\n".join(f"ops: {{{CONFIRM_JOB}: {{config: {{sync_id: {one}}}}}}}" for one in held)
        words = f"Deletes are held back. To allow them, launch the job `{CONFIRM_JOB}` with this config:"
        metadata["to confirm"] = dg.MetadataValue.md(f"{words}\n\n```yaml\n{how}\n```")
    return metadata, f"{bucket.object_count}-{bucket.total_size_bytes}-{bucket.updated_at}"


def step_metadata(collection: Collection, report: StepReport, *, thumbnails: bool) -> Mapping[str, Any]:
    """A materialisation's metadata: counts and speed, what failed and why, sample documents, thumbnails of images."""
    step = report.step
    metadata: dict[str, Any] = {
        "documents": step.documents,
        "dagster/row_count": step.documents,
        "inputs": step.inputs,
        "inferred": step.inferred,
        "reused": step.reused,
        "skipped": step.skipped,
        "failed": step.failed,
        "seconds": round(step.seconds, 3),
        "documents_per_second": round(step.documents / step.seconds, 2) if step.seconds else 0.0,
        "bytes": report.size_bytes,
    }
    for vector in collection.vectors:
        metadata[f"dimensions/{vector.output}"] = vector.dim
    if report.failures:
        rows = [dg.TableRecord({"error": f.error[:300], "type": f.error_type, "object": f.item_id}) for f in report.failures]
        metadata["failures"] = dg.MetadataValue.table(records=rows)
    if report.rows:
        metadata["sample"] = dg.MetadataValue.table(records=[dg.TableRecord(_cells(row)) for row in _same_columns(report.rows)])
    if thumbnails and report.images:
        metadata["thumbnails"] = dg.MetadataValue.md(_gallery(report.images))
    return metadata


def _shown(name: str, value: str) -> Any:
    """A moment as Dagster shows moments: in the person's own time zone."""
    is_moment = name.endswith(" pass") and value[:1].isdigit()
    return dg.MetadataValue.timestamp(datetime.fromisoformat(value)) if is_moment else value


def _same_columns(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: row.get(name) for name in names} for row in rows]


def _cells(row: Mapping[str, Any]) -> dict[str, str | int | float | bool | None]:
    return {name: value if isinstance(value, int | float | bool | None) else _short(value) for name, value in row.items()}


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"


def _gallery(images: Sequence[tuple[str, bytes]]) -> str:
    from mixpeek_dagster.extractors.pictures import thumbnail

    shown = []
    for name, data in images:
        try:
            small = base64.b64encode(thumbnail(data)).decode()
        except Exception:  # noqa: BLE001, S112 - a picture that cannot be shown is listed among the failures
            continue
        shown.append(f"![{name}](data:image/jpeg;base64,{small})")
    return " ".join(shown) or "none could be read"
