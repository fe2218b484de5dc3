"""What pages of other origins may do: use signed URLs, and nothing else."""

from typing import Any

from fastapi.testclient import TestClient

PAGE = {"Origin": "https://shop.example"}
ASKS_TO_PUT = {**PAGE, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "content-type"}


def test_a_page_puts_a_file_to_its_signed_url_and_reads_it_again(client: TestClient, bucket: dict[str, Any]) -> None:
    path = f"/v1/buckets/{bucket['bucket_id']}"
    announced = client.post(f"{path}/uploads", json={"filename": "a.png", "content_type": "image/png"}).json()
    asked = client.options(announced["presigned_url"], headers=ASKS_TO_PUT)
    assert asked.status_code == 200
    assert "PUT" in asked.headers["Access-Control-Allow-Methods"]
    assert asked.headers["Access-Control-Allow-Headers"] == "content-type"
    sent = client.put(announced["presigned_url"], content=b"\x89PNG\r\n\x1a\n", headers={**PAGE, "Content-Type": "image/png"})
    assert (sent.status_code, sent.headers["Access-Control-Allow-Origin"]) == (200, "*")
    assert "ETag" in sent.headers["Access-Control-Expose-Headers"]
    refused = client.put(announced["presigned_url"] + "0", content=b"x", headers=PAGE)
    assert (refused.status_code, refused.headers["Access-Control-Allow-Origin"]) == (403, "*"), "a page may read why"

    made = client.post(f"{path}/uploads/{announced['upload_id']}/confirm").json()["object_id"]
    blob = client.get(f"{path}/objects/{made}?return_presigned_urls=true").json()["blobs"][0]["presigned_url"]
    part = client.get(blob, headers={**PAGE, "Range": "bytes=1-3"})
    assert (part.content, part.headers["Access-Control-Allow-Origin"]) == (b"PNG", "*")
    assert "Content-Range" in part.headers["Access-Control-Expose-Headers"]


def test_requests_with_a_key_are_not_for_pages(client: TestClient, bucket: dict[str, Any]) -> None:
    path = f"/v1/buckets/{bucket['bucket_id']}"
    assert "Access-Control-Allow-Origin" not in client.get(path, headers=PAGE).headers
    assert client.options(path, headers=ASKS_TO_PUT).status_code == 405
