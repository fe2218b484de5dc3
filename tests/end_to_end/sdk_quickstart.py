"""The whole quickstart as a program of the official SDK, run by `test_sdk_quickstart` in the SDK's own environment.

Arguments: base URL, key, S3 endpoint with its access key and secret, S3 bucket to follow, URL that takes webhooks. It prints what it saw
and how long each step took; the last line is one JSON object.
"""

import json
import sys
import time
import urllib.request

import mixpeek
from mixpeek.api.batches_api import BatchesApi
from mixpeek.api.bucket_batches_api import BucketBatchesApi
from mixpeek.api.bucket_objects_api import BucketObjectsApi
from mixpeek.api.bucket_syncs_api import BucketSyncsApi
from mixpeek.api.bucket_uploads_api import BucketUploadsApi
from mixpeek.api.buckets_api import BucketsApi
from mixpeek.api.collection_documents_api import CollectionDocumentsApi
from mixpeek.api.collections_api import CollectionsApi
from mixpeek.api.document_lineage_api import DocumentLineageApi
from mixpeek.api.documents_api import DocumentsApi
from mixpeek.api.events_api import EventsApi
from mixpeek.api.feature_search_api import FeatureSearchApi
from mixpeek.api.namespaces_api import NamespacesApi
from mixpeek.api.organization_connections_api import OrganizationConnectionsApi
from mixpeek.api.tasks_api import TasksApi
from mixpeek.api.webhooks_api import WebhooksApi

base, key, endpoint, access_key, secret_key, s3_bucket, hook_url = sys.argv[1:8]
client = mixpeek.ApiClient(mixpeek.Configuration(host=base))
client.set_default_header("Authorization", f"Bearer {key}")
began = time.monotonic()
GIVE_UP_S = 240.0


def log(words):
    print(f"{time.monotonic() - began:6.1f} s  {words}", flush=True)


def model(name, body):
    return getattr(mixpeek, name).from_dict(body)


def until(read, is_done, what):
    """Poll as the documentation says: with a growing pause."""
    pause, deadline = 0.5, time.monotonic() + GIVE_UP_S
    while True:
        value = read()
        assert value is not None, f"{what}: the SDK read nothing"
        if is_done(value):
            return value
        assert time.monotonic() < deadline, f"{what}: not within {GIVE_UP_S:g} s: {value}"
        time.sleep(pause)
        pause = min(1.3 * pause, 3.0)


def ended(batch):
    return batch.status in ("COMPLETED", "FAILED", "CANCELED", "COMPLETED_WITH_ERRORS")


# Namespace, webhook, bucket, collection

namespace = NamespacesApi(client).create_namespace({"namespace_name": "production", "description": "the quickstart"})
client.set_default_header("X-Namespace", namespace.namespace_id)
events = ["collection.documents.batch_completed"]
channel = {"channel": "webhook", "configs": {"url": hook_url, "signing_secret": "s3cret"}}
hook = WebhooksApi(client).create_webhook_organizations(
    model("WebhookInput", {"webhook_name": "told", "event_types": events, "channels": [channel]})
)
assert WebhooksApi(client).list_webhooks_organizations().total == 1
schema = {"properties": {"product_text": {"type": "text"}, "sku": {"type": "string"}}}
bucket = BucketsApi(client).create_bucket({"bucket_name": "product-catalog", "bucket_schema": schema})
extractor = {
    "feature_extractor_name": "text_extractor",
    "version": "v1",
    "input_mappings": {"text": "product_text"},
    "field_passthrough": [{"source_path": "sku"}],
}
source = {"type": "bucket", "bucket_ids": [bucket.bucket_id]}
collections = CollectionsApi(client)
collection = collections.create_collection(
    model("CreateCollectionRequest", {"collection_name": "passages", "source": source, "feature_extractor": extractor})
)
assert collection.collection_id in {one.collection_id for one in collections.list_collections().results}
log("namespace, webhook, bucket and collection are made")

# A connection and a sync: files that lie at S3

config = {
    "credentials": {"type": "access_key", "access_key_id": access_key, "secret_access_key": secret_key},
    "endpoint_url": endpoint,
}
asked = {"name": "shelf", "provider_type": "s3", "provider_config": config}
connection = OrganizationConnectionsApi(client).create_storage_connection_organizations(
    model("StorageConnectionCreateRequest", asked)
)
syncs = BucketSyncsApi(client)
sync = syncs.create_sync_configuration_buckets(
    bucket.bucket_id, {"connection_id": connection.connection_id, "source_path": s3_bucket, "polling_interval_seconds": 86_400}
)
which = (bucket.bucket_id, sync.sync_config_id)
job = syncs.trigger_sync_configuration_buckets_id_config(*which)["sync_job_id"]
until(lambda: syncs.get_sync_job_buckets_id_config(*which, job), lambda one: one.status == "completed", "sync job")
log("the sync has made its pass")

# Objects and an upload, submitted as a batch

objects = BucketObjectsApi(client)
texts = {"A-1": "Wireless headphones with noise cancelling", "A-2": "A red wooden chair for the garden"}
made = []
for sku, text in texts.items():
    blob = {"property": "product_text", "type": "text", "data": text}
    made.append(
        objects.create_object_buckets(
            bucket.bucket_id, model("CreateObjectRequest", {"key_prefix": "/products", "blobs": [blob], "sku": sku})
        ).object_id
    )
uploads = BucketUploadsApi(client)
upload = uploads.create_upload_buckets(
    bucket.bucket_id, {"filename": "kettle.txt", "content_type": "text/plain", "object_metadata": {"sku": "A-3"}}
)
put = urllib.request.Request(
    upload.presigned_url, data=b"An electric kettle of steel", method="PUT", headers={"Content-Type": "text/plain"}
)
etag = urllib.request.urlopen(put).headers["ETag"]
confirmed = uploads.confirm_upload_buckets(bucket.bucket_id, upload.upload_id, confirm_upload_request={"etag": etag})
made.append(confirmed.object_id)
batches = BucketBatchesApi(client)
batch = batches.create_batch_buckets_batches(bucket.bucket_id, model("CreateBatchRequest", {"object_ids": made[:2]}))
assert batch.status == "DRAFT"
batch = batches.add_objects_to_batch_buckets_batches(bucket.bucket_id, batch.batch_id, {"object_ids": made[2:]})
task = batches.submit_batch_buckets_batches(bucket.bucket_id, batch.batch_id)
log("a batch of two objects and an upload is submitted")
done = until(lambda: BatchesApi(client).get_batch_by_id_batches(batch.batch_id), ended, "batch")
assert done.status == "COMPLETED", done
assert done.documents_written == 3
task = TasksApi(client).get_task(task.task_id)
assert task.status == "COMPLETED"
assert task.task_id in {one.task_id for one in TasksApi(client).list_tasks().results}
assert batches.get_batch_audit_buckets_batches(bucket.bucket_id, batch.batch_id)["all_balanced"]
log("the batch is COMPLETED")


def every_batch():
    return BatchesApi(client).list_all_batches().results


until(every_batch, lambda all_of_them: len(all_of_them) == 2 and all(ended(one) for one in all_of_them), "the sync's batch")
assert {one.status for one in every_batch()} == {"COMPLETED"}
log("the sync's batch is COMPLETED")

# Documents

documents = DocumentsApi(client)
of_passages = {"collection_ids": ["passages"], "limit": 100}
listed = documents.list_documents_ns(namespace_list_documents_request=model("NamespaceListDocumentsRequest", of_passages))
assert len(listed.results) == 5, len(listed.results)
wanted = {"AND": [{"field": "sku", "operator": "eq", "value": "A-1"}]}
queries = {"one": {"filters": wanted}, "all": {"limit": 2}, "none": {"collection_ids": ["missing"]}}
asked = [{"key": name, "request": {**of_passages, **query}} for name, query in queries.items()]
answers = documents.list_documents_batch(model("BatchListDocumentsRequest", {"queries": asked})).results
assert [one.key for one in answers] == ["one", "all", "none"]
(headphones,) = answers[0].response.results
assert len(answers[1].response.results) == 2
assert answers[2].error or answers[2].response.unknown_collection_ids == ["missing"]
document_id = headphones.document_id
read = CollectionDocumentsApi(client).get_document("passages", document_id)
assert read.document_id == document_id
assert documents.get_document_ns(document_id).collection_id == collection.collection_id
got = documents.batch_get(model("BatchGetDocumentsRequest", {"document_ids": [document_id]}))
assert [one.document_id for one in got.documents] == [document_id]
assert CollectionDocumentsApi(client).count_documents("passages").count == 5
lineage = DocumentLineageApi(client)
assert lineage.get_document_lineage(collection.collection_id, document_id).document_id == document_id
assert lineage.get_documents_by_object(made[0]) is not None
assert lineage.get_decomposition_tree_objects(made[0]) is not None
found = FeatureSearchApi(client).feature_search(
    model(
        "FeatureSearchRequest",
        {"query": {"text": "something to listen to music"}, "collection_identifiers": ["passages"], "top_k": 3},
    )
)
assert found["results"][0]["document_id"] == document_id, found
log("documents are listed, read, traced and searched")

# Once more, and what was told

triggered = collections.trigger_collection("passages", model("TriggerCollectionRequest", {"object_ids": made[:1]}))
again = until(lambda: BatchesApi(client).get_batch_by_id_batches(triggered.batch_id), ended, "trigger")
assert again.status == "COMPLETED"
kinds = {one.event_type for one in EventsApi(client).list_events(limit=1000).results}
assert {"object.created", "batch.completed", "collection.documents.batch_completed"} <= kinds, kinds
assert WebhooksApi(client).get_webhook_organizations("told").webhook_id == hook.webhook_id
log("the collection was triggered again, and the events tell of it all")
print(json.dumps({"batch_id": batch.batch_id, "namespace_id": namespace.namespace_id, "seconds": time.monotonic() - began}))
