"""Parts of a blob, as a browser asks for them when somebody seeks in a video."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from mixpeek_dagster.api.ranges import Part, asked_part
from mixpeek_dagster.models.buckets import BucketCreate
from mixpeek_dagster.models.ids import NamespaceId
from mixpeek_dagster.pipeline.creation import create_bucket, create_sync
from mixpeek_dagster.pipeline.syncs import advance
from mixpeek_dagster.pipeline.warehouse import Warehouse
from tests.api.conftest import open_warehouse
from tests.pipeline.worlds import NOW

BODY = bytes(range(250)) * 4
TOLD = ("Accept-Ranges", "Content-Length", "Content-Type", "ETag")


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-", (0, 1000)),
        ("bytes=0-0", (0, 1)),
        ("bytes=10-19", (10, 10)),
        ("bytes=990-5000", (990, 10)),
        ("bytes=-5", (995, 5)),
        ("bytes=-5000", (0, 1000)),
        ("Bytes = 1 - 2", (1, 2)),
        ("bytes=1000-", (1000, 0)),
        ("bytes=-0", (1000, 0)),
        ("bytes=5-4", None),
        ("bytes=-", None),
        ("bytes=0-1,5-6", None),
        ("bytes=a-b", None),
        ("bytes=\u0661-\u0662", None),
        ("items=0-1", None),
        ("bytes=" + "9" * 100 + "-", None),
        ("", None),
        (None, None),
    ],
)
def test_what_a_header_asks_for(header: str | None, part: tuple[int, int] | None) -> None:
    assert asked_part(header, 1000) == part


@given(st.one_of(st.text(), st.from_regex(r"bytes=[0-9]*-[0-9]*", fullmatch=True)), st.integers(0, 10**6))
def test_any_header_asks_for_a_part_of_the_file_or_for_all_of_it(header: str, size: int) -> None:
    part = asked_part(header, size)
    assert part is None or part.length == 0 or Part(0, 0) <= part <= Part(part.start, size - part.start)


@pytest.fixture
def warehouse(tmp_path: Path) -> Iterator[Warehouse]:
    (tmp_path / "files").mkdir()
    warehouse = open_warehouse(tmp_path, local_roots=(tmp_path / "files",))
    yield warehouse
    warehouse.close()


@pytest.fixture
def synced(warehouse: Warehouse, client: TestClient, namespace: dict[str, Any], tmp_path: Path) -> str:
    """Where the bytes of a video are that a sync has found."""
    (tmp_path / "files" / "clip.mp4").write_bytes(BODY)
    schema = {"properties": {"clip": {"type": "video"}}}
    with warehouse.catalog.transaction() as records:
        body = BucketCreate.model_validate({"bucket_name": "clips", "bucket_schema": schema})
        bucket = create_bucket(records, body, namespace_id=NamespaceId(namespace["namespace_id"]), now=NOW)
        config = {"provider": "local", "connection": {}, "sync_config": {"source_path": str(tmp_path / "files")}}
        sync = create_sync(records, config, warehouse=warehouse, bucket=bucket, now=NOW)
    assert advance(warehouse, sync.sync_id, budget_s=20, force=True)
    path = f"/v1/buckets/{bucket.bucket_id}/objects?return_presigned_urls=true"
    (found,) = client.get(path).json()["results"]
    return str(found["blobs"][0]["presigned_url"])


def pushed(client: TestClient, bucket: dict[str, Any], **blob: Any) -> str:
    path = f"/v1/buckets/{bucket['bucket_id']}/objects"
    made = client.post(path, json={"blobs": [blob]}).json()
    found = client.get(f"{path}/{made['object_id']}?return_presigned_urls=true").json()
    return str(found["blobs"][0]["presigned_url"])


def assert_seekable(client: TestClient, url: str, body: bytes) -> None:
    whole = client.get(url)
    assert (whole.status_code, whole.content) == (200, body)
    assert (whole.headers["Accept-Ranges"], whole.headers["Content-Length"]) == ("bytes", str(len(body)))
    part = client.get(url, headers={"Range": "bytes=5-8"})
    assert (part.status_code, part.content, part.headers["Content-Length"]) == (206, body[5:9], "4")
    assert part.headers["Content-Range"] == f"bytes 5-8/{len(body)}"
    assert part.headers["Content-Type"] == whole.headers["Content-Type"]
    end = client.get(url, headers={"Range": "bytes=-3", "If-Range": whole.headers["ETag"]})
    assert (end.status_code, end.content) == (206, body[-3:])
    other = client.get(url, headers={"Range": "bytes=-3", "If-Range": '"another"'})
    assert (other.status_code, other.content) == (200, body)
    head = client.head(url, headers={"Range": "bytes=5-8"})  # a Range is for a GET
    assert (head.status_code, head.content) == (200, b"")
    assert [head.headers[name] for name in TOLD] == [whole.headers[name] for name in TOLD]
    behind = client.get(url, headers={"Range": f"bytes={len(body)}-"})
    assert (behind.status_code, behind.headers["Content-Range"]) == (416, f"bytes */{len(body)}")
    assert behind.json()["error"]["code"] == "range_not_satisfiable"


def test_a_synced_file_can_be_sought_in(client: TestClient, synced: str) -> None:
    assert_seekable(client, synced, BODY)
    assert client.get(synced).headers["Content-Type"] == "video/mp4"


def test_a_managed_file_can_be_sought_in(client: TestClient, bucket: dict[str, Any]) -> None:
    data = {"base64": base64.b64encode(BODY).decode(), "mime_type": "image/png"}
    assert_seekable(client, pushed(client, bucket, property="hero_image", type="image", data=data), BODY)


def test_a_text_can_be_sought_in(client: TestClient, bucket: dict[str, Any]) -> None:
    url = pushed(client, bucket, property="product_text", type="text", content="Grüße, Welt")
    assert_seekable(client, url, "Grüße, Welt".encode())


def test_a_file_that_changed_or_went_is_an_error_and_no_broken_download(client: TestClient, synced: str, tmp_path: Path) -> None:
    (tmp_path / "files" / "clip.mp4").write_bytes(b"another")
    answer = client.get(synced, headers={"Range": "bytes=0-1"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "source_changed")
    (tmp_path / "files" / "clip.mp4").unlink()
    assert (client.get(synced).status_code, client.head(synced).status_code) == (404, 404)
