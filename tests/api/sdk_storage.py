"""Namespaces, buckets, objects, uploads, connections and syncs through the official SDK."""

import urllib.request

from mixpeek.exceptions import ApiException, NotFoundException
from sdk_session import Session, model

SCHEMA = {"properties": {"product_text": {"type": "text"}, "hero_image": {"type": "image"}, "price": {"type": "number"}}}
TEXT = {"property": "product_text", "type": "text", "data": "Wireless headphones"}


def storage(call: Session):
    assert call("AccountApi.whoami_me").key.name == "sdk"
    call("OrganizationUsageApi.get_org_usage_organizations")
    call("AnalyticsUsageApi.get_usage_summary_analytics")
    made = call("NamespacesApi.create_namespace", {"namespace_name": "sdk-space"})
    call.use_namespace(made.namespace_id)
    namespaces(call, made.namespace_id)
    bucket_id = call("BucketsApi.create_bucket", {"bucket_name": "things", "bucket_schema": SCHEMA}).bucket_id
    buckets(call, bucket_id)
    objects(call, bucket_id)
    uploads(call, bucket_id)
    syncs(call, bucket_id)
    call("BucketsApi.delete_bucket", bucket_id)
    call("NamespacesApi.delete_namespace", "sdk-space")


def namespaces(call, namespace_id):
    assert call("NamespacesApi.get_namespace", "sdk-space").namespace_id == namespace_id
    assert call("NamespacesApi.list_namespaces", include_total=True).pagination.total == 1
    assert call("NamespacesApi.list_namespaces_get").results[0].namespace_ready
    call("NamespacesApi.get_namespace_stats", "sdk-space")
    call("NamespacesApi.get_namespace_stats_batch", {"namespace_ids": [namespace_id]})
    assert call("NamespacesApi.patch_namespace", "sdk-space", {"description": "d"}).description == "d"
    call("NamespacesApi.ensure_namespace_indexes", "sdk-space", force_rebuild=True)
    call("NamespacesApi.update_namespace", "sdk-space", {"namespace_name": "sdk-space"})


def buckets(call, bucket_id):
    assert call("BucketsApi.get_bucket", "things").bucket_id == bucket_id
    assert call("BucketsApi.list_buckets").total_count == 1
    call("BucketsApi.list_buckets_get")
    call("BucketsApi.patch_bucket", bucket_id, {"description": "d"})
    call("BucketsApi.update_bucket", bucket_id, {"description": "e"})
    try:
        call("BucketsApi.get_bucket", "nothing")
    except NotFoundException as error:
        call.seen["missing bucket"] = type(error).__name__


def objects(call, bucket_id):
    asked = model("CreateObjectRequest", {"key_prefix": "/products", "blobs": [TEXT], "price": 3})
    thing = call("BucketObjectsApi.create_object_buckets", bucket_id, asked)
    assert thing.additional_properties["price"] == 3
    call("BucketObjectsApi.get_object_buckets", bucket_id, thing.object_id, include_document_count=True)
    two = model("CreateObjectsBatchRequest", {"objects": [{"blobs": [TEXT]}, {"price": "dear"}]})
    many = call("BucketObjectsApi.create_objects_batch_buckets", bucket_id, two)
    assert (many.succeeded_count, many.failed_count) == (1, 1)
    dear = {"AND": [{"field": "price", "operator": "gte", "value": 2}]}
    query = model("ListObjectsRequest", {"filters": dear, "sort": {"field": "price", "direction": "desc"}})
    page = call("BucketObjectsApi.list_objects_buckets", bucket_id, list_objects_request=query)
    assert [one.object_id for one in page.results] == [thing.object_id]
    call("BucketObjectsApi.list_objects_get_buckets", bucket_id)
    call("BucketObjectsApi.patch_object_buckets", bucket_id, thing.object_id, model("PatchObjectRequest", {"price": 4}))
    put = model("UpdateObjectRequest", {"metadata": {"price": 5}})
    call("BucketObjectsApi.update_object_buckets", bucket_id, thing.object_id, put)
    sums = {"group_by": [{"field": "price"}], "aggregations": [{"function": "count", "alias": "n"}]}
    groups = call("BucketObjectsApi.aggregate_objects_buckets", bucket_id, model("ObjectAggregationRequest", sums))
    assert groups.total_groups == 2
    out = model("BulkSoftDeleteRequest", {"object_ids": [thing.object_id], "reason": "r"})
    assert call("BucketObjectsApi.bulk_soft_delete_objects_buckets", bucket_id, out).soft_deleted == 1
    call("BucketObjectsApi.delete_object_buckets", bucket_id, thing.object_id, empty=True)


def uploads(call, bucket_id):
    photo = {"filename": "photo.jpg", "content_type": "image/jpeg"}
    upload = call("BucketUploadsApi.create_upload_buckets", bucket_id, photo)
    headers = {"Content-Type": "image/jpeg"}
    request = urllib.request.Request(upload.presigned_url, data=b"jpeg", method="PUT", headers=headers)
    etag = urllib.request.urlopen(request).headers["ETag"]
    confirm = {"confirm_upload_request": {"etag": etag}}
    assert call("BucketUploadsApi.confirm_upload_buckets", bucket_id, upload.upload_id, **confirm).object_id
    call("BucketUploadsApi.create_uploads_batch_buckets", bucket_id, {"uploads": [{**photo, "filename": "b.jpg"}]})
    confirmations = {"confirmations": [{"upload_id": upload.upload_id}]}
    task = call("BucketUploadsApi.confirm_uploads_batch_buckets", bucket_id, confirmations).task_id
    call.until_ended("TasksApi.get_task", task)
    call("BucketUploadsApi.get_upload_buckets", bucket_id, upload.upload_id)
    assert call("BucketUploadsApi.list_uploads_buckets", bucket_id).stats.total_uploads == 2
    call("BucketUploadsApi.delete_upload_buckets", bucket_id, upload.upload_id, empty=True)


def syncs(call, bucket_id):
    config = {"credentials": {"type": "access_key", "access_key_id": "a", "secret_access_key": "s"}}
    asked = {"name": "mine", "provider_type": "s3", "provider_config": config, "test_before_save": False}
    connections = "OrganizationConnectionsApi."
    connection = call(connections + "create_storage_connection_organizations", model("StorageConnectionCreateRequest", asked))
    call(connections + "get_storage_connection_organizations", "mine")
    call(connections + "list_storage_connections_organizations")
    call(connections + "update_storage_connection_organizations", "mine", {"description": "d"})
    call(connections + "test_storage_connection_organizations", "mine")
    for one in ("folders", "files"):
        try:
            call(connections + f"list_google_drive_{one}_organizations_connections", "mine", path="/")
        except ApiException as error:  # S3 wants a bucket in the path
            call.seen[f"refused {one}"] = type(error).__name__

    body = {"connection_id": connection.connection_id, "source_path": "b/videos"}
    sync = call("BucketSyncsApi.create_sync_configuration_buckets", bucket_id, body)
    which = (bucket_id, sync.sync_config_id)
    call("BucketSyncsApi.get_sync_configuration_buckets_id_config", *which)
    call("BucketSyncsApi.list_sync_configurations_buckets", bucket_id)
    call("BucketSyncsApi.update_sync_configuration_buckets_id_config", *which, {"polling_interval_seconds": 60})
    job = call("BucketSyncsApi.trigger_sync_configuration_buckets_id_config", *which)["sync_job_id"]
    call("BucketSyncsApi.get_sync_job_buckets_id_config", *which, job)
    call("BucketSyncsApi.list_sync_jobs_buckets_id_config", *which)
    call("BucketSyncsApi.get_sync_metrics_buckets_id_config", *which)
    call("BucketSyncsApi.list_dlq_entries_buckets_id_syncs_config", *which)
    call("BucketSyncsApi.requeue_dlq_entries_buckets_id_syncs_config", *which)
    give_up = {"error_types": ["schema_violation"]}
    call("BucketSyncsApi.bulk_mark_dlq_permanently_failed_buckets_id_syncs_config", *which, give_up)
    call("BucketSyncsApi.pause_sync_configuration_buckets_id_config", *which)
    call("BucketSyncsApi.resume_sync_configuration_buckets_id_config", *which)
    call("BucketSyncsApi.force_unlock_sync_configuration_buckets_id_config", *which)
    call("BucketSyncsApi.delete_sync_configuration_buckets_id_config", *which)
    call(connections + "delete_storage_connection_organizations", "mine")
