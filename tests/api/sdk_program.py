"""A program of the official SDK, run by `test_sdk` in the SDK's own environment: base URL, key and namespace are its arguments.

It prints one JSON line: what each call parsed to. A class of the SDK that cannot read an answer raises, and so ends the program.
"""

import json
import sys
import urllib.request

import mixpeek
from mixpeek.api.bucket_objects_api import BucketObjectsApi
from mixpeek.api.bucket_syncs_api import BucketSyncsApi
from mixpeek.api.bucket_uploads_api import BucketUploadsApi
from mixpeek.api.buckets_api import BucketsApi
from mixpeek.api.namespaces_api import NamespacesApi
from mixpeek.api.organization_connections_api import OrganizationConnectionsApi
from mixpeek.exceptions import NotFoundException

base, key = sys.argv[1:3]
client = mixpeek.ApiClient(mixpeek.Configuration(host=base))
client.set_default_header("Authorization", f"Bearer {key}")
namespaces, buckets, objects = NamespacesApi(client), BucketsApi(client), BucketObjectsApi(client)
uploads, syncs, connections = BucketUploadsApi(client), BucketSyncsApi(client), OrganizationConnectionsApi(client)
seen: dict[str, str] = {}


def took(name, value):
    assert value is not None, f"{name}: the SDK read nothing"
    seen[name] = type(value).__name__
    return value


def model(name, body):
    return getattr(mixpeek, name).from_dict(body)


made = took("create namespace", namespaces.create_namespace({"namespace_name": "sdk-space"}))
client.set_default_header("X-Namespace", made.namespace_id)
took("get namespace", namespaces.get_namespace("sdk-space"))
assert took("list namespaces", namespaces.list_namespaces()).results
took("list namespaces by GET", namespaces.list_namespaces_get())
took("namespace stats", namespaces.get_namespace_stats("sdk-space"))
took("namespace stats batch", namespaces.get_namespace_stats_batch({"namespace_ids": [made.namespace_id]}))
assert took("patch namespace", namespaces.patch_namespace("sdk-space", {"description": "d"})).description == "d"
took("put namespace", namespaces.update_namespace("sdk-space", {"namespace_name": "sdk-space"}))

schema = {"properties": {"product_text": {"type": "text"}, "hero_image": {"type": "image"}, "price": {"type": "number"}}}
bucket = took("create bucket", buckets.create_bucket({"bucket_name": "things", "bucket_schema": schema}))
name = bucket.bucket_id
took("get bucket", buckets.get_bucket("things"))
assert took("list buckets", buckets.list_buckets()).total_count == 1
took("list buckets by GET", buckets.list_buckets_get())
took("patch bucket", buckets.patch_bucket(name, {"description": "d"}))
took("put bucket", buckets.update_bucket(name, {"description": "e"}))

blob = {"property": "product_text", "type": "text", "data": "Wireless headphones"}
thing = took(
    "create object",
    objects.create_object_buckets(name, model("CreateObjectRequest", {"key_prefix": "/products", "blobs": [blob], "price": 3})),
)
assert thing.additional_properties["price"] == 3
took("get object", objects.get_object_buckets(name, thing.object_id))
many = took(
    "create objects",
    objects.create_objects_batch_buckets(
        name, model("CreateObjectsBatchRequest", {"objects": [{"blobs": [blob]}, {"price": "dear"}]})
    ),
)
assert (many.succeeded_count, many.failed_count) == (1, 1)
query = {"filters": {"AND": [{"field": "price", "operator": "gte", "value": 2}]}, "sort": {"field": "price", "direction": "desc"}}
assert [
    one.object_id
    for one in took(
        "list objects", objects.list_objects_buckets(name, list_objects_request=model("ListObjectsRequest", query))
    ).results
] == [thing.object_id]
took("list objects by GET", objects.list_objects_get_buckets(name))
took("patch object", objects.patch_object_buckets(name, thing.object_id, model("PatchObjectRequest", {"price": 4})))
took("put object", objects.update_object_buckets(name, thing.object_id, model("UpdateObjectRequest", {"metadata": {"price": 5}})))
objects.delete_object_buckets(name, thing.object_id)

upload = took("create upload", uploads.create_upload_buckets(name, {"filename": "photo.jpg", "content_type": "image/jpeg"}))
request = urllib.request.Request(upload.presigned_url, data=b"jpeg", method="PUT", headers={"Content-Type": "image/jpeg"})
etag = urllib.request.urlopen(request).headers["ETag"]
assert took(
    "confirm upload", uploads.confirm_upload_buckets(name, upload.upload_id, confirm_upload_request={"etag": etag})
).object_id
took(
    "create uploads",
    uploads.create_uploads_batch_buckets(name, {"uploads": [{"filename": "b.jpg", "content_type": "image/jpeg"}]}),
)
took("confirm uploads", uploads.confirm_uploads_batch_buckets(name, {"confirmations": [{"upload_id": upload.upload_id}]}))
took("get upload", uploads.get_upload_buckets(name, upload.upload_id))
assert took("list uploads", uploads.list_uploads_buckets(name)).stats.total_uploads == 2
uploads.delete_upload_buckets(name, upload.upload_id)

config = {"credentials": {"type": "access_key", "access_key_id": "a", "secret_access_key": "s"}}
asked = {"name": "mine", "provider_type": "s3", "provider_config": config, "test_before_save": False}
connection = took(
    "create connection", connections.create_storage_connection_organizations(model("StorageConnectionCreateRequest", asked))
)
took("get connection", connections.get_storage_connection_organizations("mine"))
took("list connections", connections.list_storage_connections_organizations())
took("patch connection", connections.update_storage_connection_organizations("mine", {"description": "d"}))
took("test connection", connections.test_storage_connection_organizations("mine"))

sync = took(
    "create sync",
    syncs.create_sync_configuration_buckets(name, {"connection_id": connection.connection_id, "source_path": "b/videos"}),
)
which = (name, sync.sync_config_id)
took("get sync", syncs.get_sync_configuration_buckets_id_config(*which))
took("list syncs", syncs.list_sync_configurations_buckets(name))
took("patch sync", syncs.update_sync_configuration_buckets_id_config(*which, {"polling_interval_seconds": 60}))
job = took("trigger sync", syncs.trigger_sync_configuration_buckets_id_config(*which))["sync_job_id"]
took("get job", syncs.get_sync_job_buckets_id_config(*which, job))
took("list jobs", syncs.list_sync_jobs_buckets_id_config(*which))
took("sync metrics", syncs.get_sync_metrics_buckets_id_config(*which))
took("dead letters", syncs.list_dlq_entries_buckets_id_syncs_config(*which))
took("requeue", syncs.requeue_dlq_entries_buckets_id_syncs_config(*which))
took("give up", syncs.bulk_mark_dlq_permanently_failed_buckets_id_syncs_config(*which, {"error_types": ["schema_violation"]}))
took("pause sync", syncs.pause_sync_configuration_buckets_id_config(*which))
took("resume sync", syncs.resume_sync_configuration_buckets_id_config(*which))
took("unlock sync", syncs.force_unlock_sync_configuration_buckets_id_config(*which))
syncs.delete_sync_configuration_buckets_id_config(*which)
connections.delete_storage_connection_organizations("mine")

try:
    buckets.get_bucket("nothing")
except NotFoundException as error:
    seen["missing bucket"] = type(error).__name__
took("delete bucket", buckets.delete_bucket(name))
took("delete namespace", namespaces.delete_namespace("sdk-space"))
print(json.dumps(seen))
