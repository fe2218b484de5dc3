"""Collections, batches, tasks, documents, lineage, extractors, webhooks, events and health through the official SDK."""

from mixpeek import Mixpeek
from sdk_session import Session, model

SCHEMA = {"properties": {"content": {"type": "text"}, "sku": {"type": "string"}, "price": {"type": "number"}}}
STUB = "mixpeek_dagster.testing:StubExtractor"


def processing(call: Session):
    namespace_id = call("NamespacesApi.create_namespace", {"namespace_name": "processing"}).namespace_id
    call.use_namespace(namespace_id)
    bucket_id = call("BucketsApi.create_bucket", {"bucket_name": "shop", "bucket_schema": SCHEMA}).bucket_id
    object_ids = [add(call, bucket_id, sku, price) for sku, price in (("a", 1), ("b", 2), ("c", 3))]
    upper, lower = collections(call, bucket_id)
    batch_id = batches(call, bucket_id, upper, object_ids)
    documents(call, upper, lower, object_ids[0])
    batches_again(call, bucket_id, batch_id)
    extractors(call, namespace_id, upper)
    retrievers(call)
    high_level(call, namespace_id, bucket_id, upper)
    webhooks(call)
    call("EventsApi.list_events", limit=5)
    for one in ("celery_beat_health", "healthcheck_deep_health", "healthcheck_health", "liveness_health"):
        call(f"HealthApi.{one}")
    call("CollectionsApi.delete_collection", lower)
    call("NamespacesApi.delete_namespace", namespace_id)


def add(call, bucket_id, sku, price):
    blob = {"property": "content", "type": "text", "data": f"text of {sku}"}
    body = model("CreateObjectRequest", {"blobs": [blob], "sku": sku, "price": price})
    return call("BucketObjectsApi.create_object_buckets", bucket_id, body).object_id


def collection(call, name, source):
    extractor = {"feature_extractor_name": STUB, "version": "v1", "input_mappings": {"text": "content"}}
    extractor |= {"field_passthrough": [{"source_path": "sku"}, {"source_path": "price"}]}
    body = {"collection_name": name, "source": source, "feature_extractor": extractor}
    return call("CollectionsApi.create_collection", model("CreateCollectionRequest", body)).collection_id


def collections(call, bucket_id):
    upper = collection(call, "upper", {"type": "bucket", "bucket_ids": [bucket_id]})
    lower = collection(call, "lower", {"type": "collection", "collection_ids": [upper]})
    assert call("CollectionsApi.get_collection", "upper").collection_id == upper
    assert call("CollectionsApi.list_collections").total_count == 2
    assert call("CollectionsApi.list_collections_get", search="low").total_count == 1
    call("CollectionsApi.update_collection", upper, {"description": "d"})
    assert call("CollectionsApi.describe_collection_features", upper).features
    copy = call("CollectionsApi.clone_collection", upper, model("CloneCollectionRequest", {"collection_name": "copy"}))
    assert copy.source_collection_id == upper
    call("CollectionsApi.delete_collection", copy.collection.collection_id)
    return upper, lower


def batches(call, bucket_id, upper, object_ids):
    def create(ids):
        return call("BucketBatchesApi.create_batch_buckets_batches", bucket_id, model("CreateBatchRequest", {"object_ids": ids}))

    draft = create(object_ids[:2])
    assert draft.status == "DRAFT"
    more = {"object_ids": object_ids[2:]}
    call("BucketBatchesApi.add_objects_to_batch_buckets_batches", bucket_id, draft.batch_id, more)
    patch = model("PatchBatchRequest", {"metadata": {"notes": "n"}})
    call("BucketBatchesApi.patch_batch_buckets_batches", bucket_id, draft.batch_id, patch)
    task = call("BucketBatchesApi.submit_batch_buckets_batches", bucket_id, draft.batch_id)
    done = call.until_ended("BucketBatchesApi.get_batch_buckets_batches", bucket_id, draft.batch_id)
    assert (done.status, done.documents_written, done.total_tiers) == ("COMPLETED", 6, 2), done
    assert call("BatchesApi.get_batch_by_id_batches", draft.batch_id).batch_id == draft.batch_id
    assert call("TasksApi.get_task", task.task_id).status == "COMPLETED"
    assert call("TasksApi.list_tasks", list_tasks_request={"status": "COMPLETED"}).results
    chosen = {"AND": [{"field": "task_type", "operator": "in", "value": ["api_buckets_batches_process"]}]}
    body = {"filters": chosen, "sort": {"field": "created_at", "direction": "asc"}, "search": "api_buckets"}
    found = call("TasksApi.list_tasks", list_tasks_request=model("ListTasksRequest", body)).results
    assert {one.task_type for one in found} == {"api_buckets_batches_process"}
    listed = model("ListBatchesRequest", {"status": "COMPLETED"})
    assert call("BucketBatchesApi.list_batches_buckets", bucket_id, list_batches_request=listed).total_count == 1
    assert call("BatchesApi.list_all_batches", list_batches_request=listed).total_count == 1
    for place, operation in enumerate(("BucketBatchesApi.cancel_batch_buckets_batches", "BatchesApi.cancel_batch_by_id_batches")):
        other = create(object_ids[:1]).batch_id
        assert call(operation, *([bucket_id] if place == 0 else []), other, reason="no").status == "CANCELED"
    call("BucketBatchesApi.delete_batch_buckets_batches", bucket_id, other)
    again = call("BucketBatchesApi.submit_batch_buckets_batches", bucket_id, create(object_ids[:1]).batch_id)
    call("TasksApi.kill_task", again.task_id)
    wanted = {"AND": [{"field": "price", "operator": "lte", "value": 2}]}
    body = model("TriggerCollectionRequest", {"source_filters": wanted})
    triggered = call("CollectionsApi.trigger_collection", upper, trigger_collection_request=body)
    assert triggered.object_count == 2
    call.until_ended("BatchesApi.get_batch_by_id_batches", triggered.batch_id)
    return draft.batch_id


def batches_again(call, bucket_id, batch_id):
    which = (bucket_id, batch_id)
    call("BucketBatchesApi.get_failed_documents_buckets_batches_batch", *which)
    assert call("BucketBatchesApi.get_batch_audit_buckets_batches", *which)["all_balanced"]
    call("BucketBatchesApi.retry_batch_buckets_batches", *which, model("RetryBatchRequest", {}))
    call("BucketBatchesApi.retry_tier_buckets_batches_batch_id_num", *which, 0)
    for one in ("estimate_batch_cost_buckets_batches", "diagnose_batch_buckets_batches", "get_batch_logs_buckets_batches"):
        call(f"BucketBatchesApi.{one}", *which)
    call("BucketBatchesApi.submit_all_drafts_buckets_batches", bucket_id)
    bulk = model("BulkSubmitBatchesRequest", {"chunk_size": 2})
    some = call("BucketBatchesApi.bulk_submit_batches_buckets", bucket_id, bulk_submit_batches_request=bulk)
    assert (some.total_batches, some.submitted) == (2, 2)
    call("BatchesApi.get_queue_status_batches")
    call.until_ended("BatchesApi.get_batch_by_id_batches", some.batches[-1].batch_id)
    call("BucketBatchesApi.delete_batch_documents_buckets_batches", bucket_id, some.batches[0].batch_id)
    again = call("BucketBatchesApi.resubmit_batch_buckets_batches", *which)
    call.until_ended("BatchesApi.get_batch_by_id_batches", again["batch_id"])


def documents(call, upper, lower, object_id):
    below = "CollectionDocumentsApi."
    query = {"collection_ids": [upper], "sort": {"field": "price", "direction": "desc"}, "return_vectors": True, "limit": 2}
    query |= {"return_presigned_urls": True, "return_vector_names": True}
    page = call("DocumentsApi.list_documents_ns", namespace_list_documents_request=model("NamespaceListDocumentsRequest", query))
    assert page.results[0].additional_properties["price"] == 3 and page.total_documents == page.stats.total_documents
    first = page.results[0].document_id
    grouped = model("NamespaceListDocumentsRequest", {"group_by": "source_object_id"})
    groups = call("DocumentsApi.list_documents_ns", namespace_list_documents_request=grouped).groups
    assert {one.count for one in groups} <= {2, 3, 4, 5, 6} and len(groups) == 3
    queries = [{"key": "a", "request": {"limit": 1}}, {"key": "b", "request": {"cursor": "wrong"}}]
    body = model("BatchListDocumentsRequest", {"queries": queries})
    good, bad = call("DocumentsApi.list_documents_batch", body).results
    assert good.response.results and bad.error and bad.response is None
    found = call("DocumentsApi.batch_get", {"document_ids": [first, "doc_none"]})
    assert (len(found.documents), found.not_found) == (1, ["doc_none"])
    call("DocumentsApi.get_document_ns", first, return_vectors=True, expand="customer")
    call("DocumentsApi.patch_document_ns", first, {"colour": "red"})
    call("DocumentsApi.update_document_ns", first, {"colour": "blue", "price": 3})

    call(below + "get_document", upper, first, return_presigned_urls=True)
    call(below + "list_documents", upper, limit=1, filters='{"AND": [{"field": "colour", "value": "blue"}]}')
    call(below + "list_documents_0", upper, list_documents_request=model("ListDocumentsRequest", {"limit": 1}))
    call(below + "patch_document", upper, first, {"colour": "green"})
    call(below + "update_document", upper, first, {"colour": "green", "price": 3})
    made = call(below + "create_document", lower, model("DocumentCreateRequest", {"metadata": {"title": "x"}, "n": 1}))
    assert made.additional_properties["n"] == 1
    updates = [{"document_id": made.document_id, "update_data": {"n": 2}}]
    assert call(below + "batch_update", lower, model("BatchUpdateDocumentsRequest", {"updates": updates})).updated_count == 1
    few = {"AND": [{"field": "n", "operator": "eq", "value": 2}]}
    bulk = model("BulkUpdateDocumentsRequest", {"filters": few, "update_data": {"n": 3}})
    call.until_ended("TasksApi.get_task", call(below + "bulk_update", lower, bulk).task_id)
    assert call(below + "count_documents", upper).count > 0
    assert call(below + "distinct_document_values", upper, {"field": "sku"}).total_distinct == 2
    sums = {"aggregations": [{"function": "sum", "field": "price", "alias": "sum"}], "group_by": [{"field": "sku"}]}
    assert call(below + "aggregate_documents", upper, model("DocumentAggregationRequest", sums)).total_groups == 3
    ids = model("BatchDeleteDocumentsRequest", {"document_ids": [made.document_id, "doc_none"]})
    gone = call(below + "batch_delete", lower, ids)
    assert (gone.deleted_count, gone.failed_count) == (1, 1)

    assert call(below + "get_document_diagnostics", upper, first).visibility_reason.searchable
    assert call(below + "validate_document_schema", upper, {"price": "dear"})["valid"] is False
    assert call("CollectionsApi.reconcile_collection_reconciliation", upper).source_object_count == 3
    assert call("DocumentLineageApi.get_documents_by_object", object_id)["results"]
    assert call("DocumentLineageApi.get_decomposition_tree_objects", object_id, include_document_ids=True)
    deep = model("NamespaceListDocumentsRequest", {"collection_ids": [lower], "limit": 1})
    child = call("DocumentsApi.list_documents_ns", namespace_list_documents_request=deep).results[0].document_id
    assert call("DocumentLineageApi.get_document_lineage", lower, child).depth == 2
    parents = call(below + "get_document_ancestors", lower, child)
    assert len(parents) == 1 and parents[0].collection_id == upper
    children = call(below + "get_document_descendants", upper, parents[0].document_id)
    assert child in [one.document_id for one in children]
    call(below + "delete_document", lower, child)


def extractors(call, namespace_id, upper):
    assert "passthrough_extractor_v1" in [
        one.feature_extractor_id for one in call("FeatureExtractorsApi.list_feature_extractors")
    ]
    call("FeatureExtractorsApi.get_feature_extractor_by", "passthrough_extractor_v1")
    assert call("NamespaceExtractorsApi.list_extractors_namespaces", namespace_id).builtin_count
    call("NamespaceExtractorsApi.get_extractor_namespaces", namespace_id, "passthrough_extractor_v1")
    call("DiscoveryApi.list_extractors_discovery")
    call("FeaturesApi.discover_features")
    body = model("FeatureSearchRequest", {"query": {"text": "text of a"}, "feature_uri": "mixpeek://stub_extractor@v1/embedding"})
    assert call("FeatureSearchApi.feature_search", body)["results"]


def retrievers(call):
    find = {"feature_uri": "mixpeek://stub_extractor@v1/embedding", "query": {"input_mode": "text", "text": "{{INPUT.query}}"}}
    stages = [{"stage_name": "find", "config": {"stage_id": "feature_search", "parameters": {"searches": [find]}}}]
    stages += [{"stage_name": "few", "config": {"stage_id": "attribute_filter", "parameters": {"field": "sku", "value": "a"}}}]
    schema = {"query": {"type": "text", "required": True}}
    body = {"retriever_name": "mine", "stages": stages, "input_schema": schema}
    made = call("RetrieversApi.create_retriever", model("CreateRetrieverRequest", body))
    assert call("RetrieversApi.get_retriever", made.retriever_id).retriever_name == "mine"
    assert call("RetrieversApi.list_retrievers").total == call("RetrieversApi.list_retrievers_get").total == 1
    call("RetrieverStagesApi.list_stages_retrievers")
    patch = model("PatchRetrieverRequest", {"description": "d"})
    assert call("RetrieversApi.patch_retriever", made.retriever_id, patch).retriever.description == "d"
    inputs = model("ExecuteRetrieverRequest", {"inputs": {"query": "text of a"}})
    found = call("RetrieversApi.execute_retriever", made.retriever_id, inputs)
    assert {one["sku"] for one in found.documents} == {"a"} and found.stage_statistics.stages["few"].output_count
    ad_hoc = model("AdhocExecuteRequest", {"stages": stages, "inputs": {"query": "text of a"}})
    assert call("AdhocRetrieversApi.execute_adhoc_retriever", ad_hoc)["documents"]
    copy = model("CloneRetrieverRequest", {"retriever_name": "copy"})
    assert call("RetrieversApi.clone_retriever", made.retriever_id, copy).source_retriever_id == made.retriever_id
    many = model("ExecuteBatchRequest", {"queries": [{"inputs": {"query": "text of a"}}, {"inputs": {"query": "text of b"}}]})
    assert len(call("RetrieversApi.execute_batch_retrievers", made.retriever_id, many)["results"]) == 2
    call("RetrieversApi.delete_retriever", made.retriever_id)


def high_level(call, namespace_id, bucket_id, upper):
    """The client most programs use: plain dicts over a few routes."""
    client = Mixpeek(call.key, namespace=namespace_id, base_url=f"{call.base}/v1")
    assert namespace_id in [one["namespace_id"] for one in client.namespaces.list()["results"]]
    assert client.buckets.get(bucket_id)["bucket_name"] == "shop"
    made = client.buckets.upload(bucket_id, data="text of d", metadata={"sku": "d"})
    assert made["sku"] == "d"
    assert len(client.buckets.list_objects(bucket_id, page_size=2)["results"]) == 2
    task = client.collections.trigger(upper, object_ids=[made["object_id"]])["task_id"]
    call.until_ended("TasksApi.get_task", task)
    found = client.search("text of d", collection=upper, limit=3)["documents"]
    assert found[0]["sku"] == "d"
    assert client.search("text of d", collection=upper, filters={"sku": "a"})["documents"][0]["sku"] == "a"
    page = client.documents.list(upper, page_size=1, return_vectors=True, filters={"sku": "d"})["results"]
    vector = next(iter(page[0]["vectors"].values()))
    queries = [{"vector_name": "mixpeek://stub_extractor@v1/embedding", "vector": vector, "top_k": 1}]
    assert client.search(namespace_id=namespace_id, queries=queries)["documents"][0]["sku"] == "d"
    assert client.documents.search(query="text of d", collection_ids=[upper])["results"][0]["sku"] == "d"
    assert client.documents.update(upper, page[0]["document_id"], update_data={"seen": True})["seen"] is True
    assert client.tasks.get(task)["status"] == "COMPLETED"
    client.documents.delete(upper, page[0]["document_id"])


def webhooks(call):
    channel = {"channel": "webhook", "configs": {"url": "https://example.com/hook", "signing_secret": "s"}}
    body = {"webhook_name": "mine", "event_types": ["object.created"], "channels": [channel]}
    made = call("WebhooksApi.create_webhook_organizations", model("WebhookInput", body))
    call("WebhooksApi.get_webhook_organizations", "mine")
    assert call("WebhooksApi.list_webhooks_organizations").total == 1
    call("WebhooksApi.update_webhook_organizations", made.webhook_id, model("WebhookInput", {**body, "is_active": False}))
    call("WebhooksApi.delete_webhook_organizations", "mine", empty=True)
