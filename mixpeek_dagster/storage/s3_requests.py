"""Requests to S3: where a bucket is, and signatures (AWS Signature Version 4).

botocore could do both, at 25 MB of memory and a millisecond of CPU for each request; the tests hold these two to its answers.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple, Protocol
from urllib.parse import quote, urlencode, urlsplit

from mixpeek_dagster.storage.http import Request
from mixpeek_dagster.storage.s3_config import Endpoint

NOTHING = hashlib.sha256(b"").hexdigest()
_HOST_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_IP = re.compile(r"[\d.]+|.*:.*")
AWS = "amazonaws.com"
_SUFFIXES = {
    "cn-": "amazonaws.com.cn",
    "us-iso-": "c2s.ic.gov",
    "us-isob-": "sc2s.sgov.gov",
    "us-isof-": "csp.hci.ic.gov",
    "eu-isoe-": "cloud.adc-e.uk",
    "eusc-": "amazonaws.eu",
}
"""Domains of AWS's regions outside of the public partition, by how the region begins."""


class SigningKeys(Protocol):
    """What a request is signed with: ours, or botocore's frozen credentials."""

    @property
    def access_key(self) -> str: ...

    @property
    def secret_key(self) -> str: ...

    @property
    def token(self) -> str | None: ...


class Keys(NamedTuple):
    """Keys as they were given."""

    access_key: str
    secret_key: str
    token: str | None = None


def bucket_url(endpoint: Endpoint, bucket: str) -> str:
    """The base URL of a bucket, without a slash at its end: `https://bucket.host`, or `https://host/bucket` where it cannot
    be part of a host name (`path_style`, an IP address, capitals, underscores, or dots below TLS)."""
    suffix = next((domain for start, domain in _SUFFIXES.items() if endpoint.region.startswith(start)), AWS)
    base = (endpoint.url or f"https://s3.{endpoint.region}.{suffix}").rstrip("/")
    scheme, _, rest = base.partition("://")
    is_name = not _IP.fullmatch(urlsplit(base).hostname or "")
    fits = is_name and _HOST_NAME.fullmatch(bucket) and ("." not in bucket or scheme == "http")
    if endpoint.path_style or not fits:
        return f"{base}/{quote(bucket, safe='~')}"
    return f"{scheme}://{bucket}.{rest}"


def is_aws(endpoint: Endpoint) -> bool:
    """Whether requests go to AWS's own S3, not to one of its relatives."""
    host = urlsplit(endpoint.url).hostname or "" if endpoint.url else AWS
    return any(f".{host}".endswith(f".{domain}") for domain in (AWS, *_SUFFIXES.values()))


def sign(
    method: str,
    url: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    *,
    keys: SigningKeys,
    region: str,
    service: str = "s3",
    body: bytes = b"",
    now: datetime | None = None,
) -> Request:
    """A signed request. `url` is percent-encoded and has no query; its path is signed and sent as it is."""
    parts = urlsplit(url)
    time = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
    default_port = {"http": 80, "https": 443}[parts.scheme]
    host = parts.netloc.removesuffix(f":{default_port}")
    content = hashlib.sha256(body).hexdigest() if body else NOTHING
    sent = {**headers, "Host": host, "X-Amz-Date": time, "X-Amz-Content-SHA256": content}
    if keys.token:
        sent["X-Amz-Security-Token"] = keys.token
    named = sorted((name.lower(), " ".join(value.split())) for name, value in sent.items())
    signed = ";".join(name for name, _ in named)
    query_text = urlencode(sorted(query.items()), quote_via=quote, safe="~")
    canonical = [method, parts.path or "/", query_text, *(f"{name}:{value}" for name, value in named), "", signed, content]
    scope = f"{time[:8]}/{region}/{service}/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{time}\n{scope}\n{hashlib.sha256(chr(10).join(canonical).encode()).hexdigest()}"
    key = f"AWS4{keys.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    sent["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={keys.access_key}/{scope}, SignedHeaders={signed}, Signature={signature}"
    )
    return Request(method, f"{url}?{query_text}" if query_text else url, sent, body or None)
