"""Addresses and signatures are the ones that botocore would make."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import botocore.session
import pytest
from botocore import UNSIGNED
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from mixpeek_dagster.storage.s3_config import Endpoint
from mixpeek_dagster.storage.s3_requests import Keys, bucket_url, sign

SESSION = botocore.session.Session()
REGIONS = [
    region for partition in SESSION.get_available_partitions() for region in SESSION.get_available_regions("s3", partition)
]


def botocores_url(endpoint: Endpoint, bucket: str) -> str:
    style = "path" if endpoint.path_style else "virtual"
    s3: Any = {"addressing_style": style, "us_east_1_regional_endpoint": "regional"}
    config = Config(signature_version=UNSIGNED, s3=s3)
    client: Any = SESSION.create_client("s3", region_name=endpoint.region, endpoint_url=endpoint.url, config=config)
    url: str = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"}, HttpMethod="GET")
    return url


@pytest.mark.parametrize("region", REGIONS)
def test_buckets_of_every_region_of_aws_are_where_botocore_looks_for_them(region: str) -> None:
    endpoint = Endpoint(None, region, path_style=False)
    assert bucket_url(endpoint, "my-bucket") + "/k" == botocores_url(endpoint, "my-bucket")


@pytest.mark.parametrize("path_style", [True, False])
@pytest.mark.parametrize("bucket", ["my-bucket", "my.bucket", "My_Bucket", "ab", "1234", "UPPER", "under_score", "a" * 64])
@pytest.mark.parametrize("url", ["https://x.example.com", "http://x.example.com:8000", "https://ref.example.co/storage/v1/s3"])
def test_buckets_of_other_servers_are_too(url: str, bucket: str, path_style: bool) -> None:
    endpoint = Endpoint(url, "us-east-1", path_style)
    assert bucket_url(endpoint, bucket) + "/k" == botocores_url(endpoint, bucket)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9000", "https://[::1]:9000"])
def test_a_bucket_is_never_part_of_an_ip_address(url: str) -> None:
    assert bucket_url(Endpoint(url, "us-east-1", path_style=False), "my-bucket") == f"{url}/my-bucket"


QUERIES = [
    {},
    {"list-type": "2", "prefix": "vid eos/\u00e4+&=~", "start-after": "a/../b\n", "encoding-type": "url", "max-keys": "7"},
    {"versionId": "3/L4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY"},
]


@pytest.mark.parametrize("query", QUERIES, ids=len)
@pytest.mark.parametrize("path", ["/b", "/b/a%20b/../c~%2B%25/%C3%A4", "/"])
@pytest.mark.parametrize("host", ["https://x.example.com", "http://127.0.0.1:8333", "https://x.example.com:443"])
@pytest.mark.parametrize("token", [None, "session+token/="])
def test_requests_are_signed_as_botocore_signs_them(
    monkeypatch: pytest.MonkeyPatch, host: str, path: str, query: dict[str, str], token: str | None
) -> None:
    now = datetime(2026, 11, 22, 1, 2, 3, tzinfo=UTC)
    keys, headers = Keys("AKIATEST", "secret/+", token), {"If-Match": '"an  etag"', "Range": "bytes=0-9"}
    ours = sign("GET", host + path, query, headers, keys=keys, region="eu-west-1", now=now)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda **_: now)
    theirs = AWSRequest("GET", ours.url, headers=dict(headers) | {"X-Amz-Content-SHA256": ours.headers["X-Amz-Content-SHA256"]})
    auth = S3SigV4Auth(Credentials(*keys), "s3", "eu-west-1")
    monkeypatch.setattr(auth, "_should_sha256_sign_payload", lambda _request: True)
    auth.add_auth(theirs)
    assert ours.headers["Authorization"] == theirs.headers["Authorization"]
    assert ours.headers["Host"] == urlsplit(host).netloc.removesuffix(":443")
