"""The signature of what definitions are made of, on SQLite and on Postgres."""

from collections.abc import Callable

from mixpeek_dagster.catalog import Catalog, Records
from mixpeek_dagster.models.namespaces import Namespace
from tests.pipeline.worlds import make_bucket

LATER = "2026-11-22T00:00:01.000000Z"


def test_the_signature_changes_with_every_change_of_a_noun_and_with_nothing_else(catalog: Catalog, namespace: Namespace) -> None:
    with catalog.transaction() as records:
        bucket = make_bucket(records, namespace)
        empty = records.definitions.signature()

    def signature_after(change: Callable[[Records], object]) -> str:
        with catalog.transaction() as records:
            change(records)
        with catalog.reading() as records:
            return records.definitions.signature()

    assert signature_after(lambda records: records.buckets.count(bucket.bucket_id, objects=3, size_bytes=30)) == empty
    made = signature_after(lambda records: make_bucket(records, namespace))
    changed = signature_after(lambda records: records.buckets.put(bucket.model_copy(update={"updated_at": LATER})))
    gone = signature_after(lambda records: records.buckets.remove(bucket.bucket_id))
    renamed = namespace.model_copy(update={"namespace_name": "other", "updated_at": LATER})
    seen = [empty, made, changed, gone, signature_after(lambda records: records.namespaces.put(renamed))]
    assert len(set(seen)) == len(seen)
