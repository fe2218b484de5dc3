"""Tasks: work that outlives its request and is no batch. A batch answers for its own task id."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from mixpeek_dagster.models.ids import NamespaceId, TaskId
from mixpeek_dagster.models.values import Value


class TaskType(StrEnum):
    """What a task does, in the SDK's words."""

    DELETE_NAMESPACE = "api_namespaces_delete"
    DELETE_BUCKET = "api_buckets_delete"
    CONFIRM_UPLOAD = "api_buckets_uploads_confirm"
    CONFIRM_UPLOADS = "api_buckets_uploads_batch_confirm"
    UPDATE_DOCUMENTS = "api_collections_documents_bulk_update"
    DELETE_DOCUMENTS = "api_collections_documents_bulk_delete"


BATCH_TASKS: Mapping[str, str] = {"BUCKET": "api_buckets_batches_process", "COLLECTION": "api_collections_trigger"}
"""What the task of a batch does, by the type of the batch."""


class TaskStatus(StrEnum):
    """PENDING until somebody works on it; the last three are final."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


class Task(Value):
    """A task as recorded."""

    task_id: TaskId
    namespace_id: NamespaceId | None
    task_type: TaskType
    status: TaskStatus = TaskStatus.PENDING
    inputs: dict[str, Any]
    outputs: dict[str, Any] | None = None
    error: str | None = None
    created_at: str
    updated_at: str
    completed_at: str | None = None
