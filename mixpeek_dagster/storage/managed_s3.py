"""Our own files in an S3 bucket of the operator's, with the provider's presigned URLs."""

import base64
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO, cast

from botocore.config import Config as BotoConfig
from botocore.exceptions import ClientError

from mixpeek_dagster.errors import AlreadyExists, Changed
from mixpeek_dagster.storage.blobs import Blob, Presigned, StoreUrl, attachment, check_key, check_one_put
from mixpeek_dagster.storage.parts import range_header
from mixpeek_dagster.storage.s3_config import Endpoint, region_in
from mixpeek_dagster.storage.s3_credentials import aws_session, botocore_errors
from mixpeek_dagster.storage.s3_errors import error_from
from mixpeek_dagster.storage.s3_listing import plain_etag
from mixpeek_dagster.storage.spool import spool

LARGEST_PUT = 5 * 1024**3
"""What S3 takes in one request."""


def own_region() -> str | None:
    """The region that the environment or the profile names."""
    with botocore_errors():
        found: str | None = os.environ.get("AWS_REGION") or aws_session().get_config_variable("region")
    return found


class _EndsBefore(Exception):
    """The file ends before the part that was asked for."""


class S3Blobs:
    """Files below a prefix of a bucket. The operator's own bucket: its address is not checked as tenants' are."""

    is_remote = True

    def __init__(
        self,
        bucket: str,
        *,
        prefix: str = "",
        endpoint: Endpoint,
        access_key_id: str | None = None,
        secret_access_key: str | None = None,
    ) -> None:
        """Without keys the machine's own credentials are used."""
        self._bucket = bucket
        self._prefix = prefix
        config = BotoConfig(
            signature_version="s3v4",  # the default would presign with version 2 for other endpoints than AWS
            s3={"addressing_style": "path" if endpoint.path_style else "virtual"},
            retries={"mode": "standard", "max_attempts": 4},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        with botocore_errors():
            self._client: Any = aws_session().create_client(
                "s3",
                region_name=endpoint.region,
                endpoint_url=endpoint.url,
                aws_access_key_id=access_key_id,
                aws_secret_access_key=secret_access_key,
                config=config,
            )

    @classmethod
    def at(cls, url: StoreUrl) -> "S3Blobs":
        """The store that `s3://bucket/prefix?region=eu-west-1&endpoint_url=https://…` names, with this machine's credentials.

        Without a region it is in the one that this machine's AWS settings name; another server than AWS's has none of those.
        """
        endpoint_url = url.options.get("endpoint_url")
        region = url.options.get("region") or (region_in(endpoint_url) if endpoint_url else own_region())
        endpoint = Endpoint(endpoint_url, region or "us-east-1", path_style=endpoint_url is not None)
        return cls(url.place, prefix=url.prefix, endpoint=endpoint)

    def put(
        self, key: str, source: BinaryIO, *, content_type: str = "", max_bytes: int | None = None, replace: bool = False
    ) -> Blob:
        spooled = spool(source, f"Blob {key}", limit=LARGEST_PUT if max_bytes is None else max_bytes)
        params = {**self._params(key), "Body": spooled.reopen(), "ContentLength": spooled.size}
        if content_type:
            params["ContentType"] = content_type
        if not replace:
            params["IfNoneMatch"] = "*"
        answer = self._call("put_object", key, params)
        return Blob(key, spooled.size, plain_etag(answer.get("ETag", "")), content_type, spooled.sha256.hex())

    @contextmanager
    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[BinaryIO]:
        try:
            body = self._call("get_object", key, {**self._params(key), **range_header(start, length)})["Body"]
        except _EndsBefore:
            body = io.BytesIO()
        try:
            yield cast(BinaryIO, body)
        finally:
            body.close()

    def head(self, key: str) -> Blob | None:
        try:
            answer = self._call("head_object", key, self._params(key))
        except FileNotFoundError:
            return None
        sha256 = base64.b64decode(answer.get("ChecksumSHA256", "")).hex()
        return Blob(key, answer["ContentLength"], plain_etag(answer.get("ETag", "")), answer.get("ContentType", ""), sha256)

    def copy(self, key: str, to: str, *, etag: str) -> None:
        source = self._params(key)
        self._call("copy_object", key, {**self._params(to), "CopySource": source, "CopySourceIfMatch": f'"{etag}"'})

    def delete(self, key: str) -> None:
        self._call("delete_object", key, self._params(key))

    def remove_leftovers(self) -> int:
        return 0

    def presign_put(
        self, key: str, *, expires_s: int, content_type: str = "", size: int | None = None, max_bytes: int | None = None
    ) -> Presigned:
        params, headers = self._params(key), dict[str, str]()
        if content_type:
            params["ContentType"] = headers["Content-Type"] = content_type
        if size is not None:
            check_one_put(size, largest=LARGEST_PUT, max_bytes=max_bytes)
            params["ContentLength"] = size  # signed: another length is refused
        return self._presign("put_object", "PUT", params, headers, expires_s)

    def presign_get(self, key: str, *, expires_s: int, content_type: str = "", filename: str = "") -> Presigned:
        params: dict[str, Any] = self._params(key)
        if content_type:
            params["ResponseContentType"] = content_type
        if filename:
            params["ResponseContentDisposition"] = attachment(filename)
        return self._presign("get_object", "GET", params, {}, expires_s)

    def _params(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": self._prefix + check_key(key)}

    def _presign(self, operation: str, method: str, params: dict[str, Any], headers: dict[str, str], expires_s: int) -> Presigned:
        with botocore_errors():
            url = self._client.generate_presigned_url(operation, Params=params, ExpiresIn=expires_s, HttpMethod=method)
        expires_at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=expires_s)
        return Presigned(method=method, url=url, headers=headers, expires_at=expires_at)

    def _call(self, operation: str, key: str, params: dict[str, Any]) -> Any:
        with botocore_errors():
            try:
                return getattr(self._client, operation)(**params)
            except ClientError as error:
                raise _meaning(error, operation, key) from error


def _meaning(error: ClientError, operation: str, key: str) -> Exception:
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    code = error.response.get("Error", {}).get("Code", "")
    if operation == "put_object" and status in (409, 412):
        return AlreadyExists(f"Blob {key} is there already.")
    if operation == "copy_object" and status == 412:
        return Changed(f"Blob {key} was replaced.")
    if status == 416:
        return _EndsBefore()
    if status == 404 and code in ("NoSuchKey", "404"):
        return FileNotFoundError(f"There is no blob {key}.")
    return error_from(status, {}, f"<Code>{code}</Code>".encode(), what=f"Blob {key}")
