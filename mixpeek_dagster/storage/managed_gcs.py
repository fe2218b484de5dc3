"""Our own files in a bucket of the operator's at Google Cloud Storage, with URLs that a service account's key signs, here or at IAM."""

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode

from urllib3.response import BaseHTTPResponse

from mixpeek_dagster.errors import AlreadyExists, Changed, Invalid
from mixpeek_dagster.models.values import utc_now
from mixpeek_dagster.settings import Settings
from mixpeek_dagster.storage.blobs import Blob, Presigned, StoreUrl, attachment, check_key, check_one_put
from mixpeek_dagster.storage.gcs import ENDPOINT, error_from, key_file, object_path, own_account, service_account
from mixpeek_dagster.storage.gcs_iam import EMAIL, KeptAccount
from mixpeek_dagster.storage.gcs_signing import Account, AccountKey, UrlSigner
from mixpeek_dagster.storage.http import Http, Request, body_stream, read_all
from mixpeek_dagster.storage.parts import READABLE, range_header
from mixpeek_dagster.storage.spool import spool
from mixpeek_dagster.storage.tokens import BearerToken, host_of, send_as

READ_WRITE = "https://www.googleapis.com/auth/devstorage.read_write"
LARGEST_PUT = 5 * 1024**4
NEEDS = "storage.objects.create, storage.objects.get and storage.objects.delete"
FIELDS = "size,md5Hash,generation,contentType"


class GCSBlobs:
    """Files below a prefix of a bucket. The operator's own bucket: its address is not checked as tenants' are."""

    is_remote = True

    def __init__(
        self,
        bucket: str,
        *,
        prefix: str = "",
        signer: UrlSigner,
        token: BearerToken | None,
        http: Http,
        base_url: str = ENDPOINT,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """`token` None asks anonymously."""
        self._bucket = bucket
        self._prefix = prefix
        self._signer = signer
        self._token = token
        self._http = http
        self._base_url = base_url.rstrip("/")
        self._clock = clock

    @classmethod
    def at(cls, url: StoreUrl, *, settings: Settings) -> "GCSBlobs":
        """The store that `gs://bucket/prefix?endpoint_url=…&service_account=…` names, with the key file that the settings name, else
        with this machine's own account, which signs as itself or as `service_account`.

        Raises:
            Invalid: the key file is none, or `service_account` is no account's e-mail address, or both are given.
        """
        base_url = url.options.get("endpoint_url", ENDPOINT)
        http = Http(allowed_hosts={host_of(base_url)}, host_from="MIXPEEK_BLOBS")
        account, token = _login(settings, http, url.options.get("service_account"))
        return cls(url.place, prefix=url.prefix, signer=UrlSigner(account), token=token, http=http, base_url=base_url)

    def put(
        self, key: str, source: BinaryIO, *, content_type: str = "", max_bytes: int | None = None, replace: bool = False
    ) -> Blob:
        query = {"uploadType": "media", "name": self._name(key), "fields": FIELDS}
        if not replace:
            query["ifGenerationMatch"] = "0"
        spooled = spool(source, f"Blob {key}", limit=LARGEST_PUT if max_bytes is None else max_bytes)
        headers = {"Content-Length": str(spooled.size), "Content-Type": content_type or "application/octet-stream"}
        target = f"/upload/storage/v1/b/{quote(self._bucket, safe='')}/o?{urlencode(query)}"
        try:
            item = self._ask("POST", target, key, headers=headers, body=spooled.reopen)
        except Changed as error:
            raise AlreadyExists(f"Blob {key} is there already.") from error
        return _blob(key, item)._replace(sha256=spooled.sha256.hex())

    @contextmanager
    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[BinaryIO]:
        response = self._send("GET", f"{self._path(key)}?alt=media", headers=range_header(start, length))
        if response.status not in READABLE:
            raise self._error(response, key)
        with body_stream(response, host=host_of(self._base_url), start=start, length=length) as stream:
            yield stream

    def head(self, key: str) -> Blob | None:
        try:
            return _blob(key, self._item(key))
        except FileNotFoundError:
            return None

    def copy(self, key: str, to: str, *, etag: str) -> None:
        found = self._item(key)
        if _blob(key, found).etag != etag:
            raise Changed(f"Blob {key} was replaced.")
        query = {"ifSourceGenerationMatch": str(found["generation"]), "fields": "done,rewriteToken"}
        target = self._path(to).removeprefix("/storage/v1")
        while True:  # the service may want to be asked again while it is at a large file
            answer = self._ask("POST", f"{self._path(key)}/rewriteTo{target}?{urlencode(query)}", key)
            if answer.get("done") or not answer.get("rewriteToken"):
                return
            query["rewriteToken"] = str(answer["rewriteToken"])

    def delete(self, key: str) -> None:
        response = self._send("DELETE", self._path(key))
        if response.status >= 300 and not isinstance(error := self._error(response, key), FileNotFoundError):
            raise error
        read_all(response)

    def remove_leftovers(self) -> int:
        return 0

    def presign_put(
        self, key: str, *, expires_s: int, content_type: str = "", size: int | None = None, max_bytes: int | None = None
    ) -> Presigned:
        """As the port says. Who announced the size can be asked for headers that hold the file to it, and to being the first one;
        others may put with a plain PUT."""
        headers = {"Content-Type": content_type} if content_type else {}
        if size is not None:
            check_one_put(size, largest=LARGEST_PUT, max_bytes=max_bytes)
            headers |= {"x-goog-content-length-range": f"{size},{size}", "x-goog-if-generation-match": "0"}
        return self._presign("PUT", key, expires_s=expires_s, headers=headers, query={})

    def presign_get(self, key: str, *, expires_s: int, content_type: str = "", filename: str = "") -> Presigned:
        query = {"response-content-type": content_type} if content_type else {}
        if filename:
            query["response-content-disposition"] = attachment(filename)
        return self._presign("GET", key, expires_s=expires_s, headers={}, query=query)

    def _presign(self, method: str, key: str, *, expires_s: int, headers: dict[str, str], query: Mapping[str, str]) -> Presigned:
        now = self._clock().astimezone(UTC).replace(microsecond=0)
        url = f"{self._base_url}/{quote(self._bucket, safe='')}/{quote(self._name(key))}"
        signed = self._signer.sign(method, url, expires_s=expires_s, now=now, headers=headers, query=query)
        return Presigned(method=method, url=signed, headers=headers, expires_at=now + timedelta(seconds=expires_s))

    def _item(self, key: str) -> dict[str, Any]:
        return self._ask("GET", f"{self._path(key)}?{urlencode({'fields': FIELDS})}", key)

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _path(self, key: str) -> str:
        return object_path(self._bucket, self._name(key).encode())

    def _ask(
        self,
        method: str,
        target: str,
        key: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Callable[[], bytes | BinaryIO] | None = None,
    ) -> dict[str, Any]:
        response = self._send(method, target, headers=headers, body=body)
        if response.status != 200:
            raise self._error(response, key)
        return dict(json.loads(read_all(response)))

    def _send(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Callable[[], bytes | BinaryIO] | None = None,
    ) -> BaseHTTPResponse:
        url = self._base_url + target
        return send_as(self._token, self._http, lambda: Request(method, url, headers or {}, body() if body else None))

    def _error(self, response: BaseHTTPResponse, key: str) -> Exception:
        if response.status == 412:
            read_all(response)
            return Changed(f"Blob {key} was replaced.")
        return error_from(response, f"Blob {key} in gs://{self._bucket}", needs=NEEDS)


def _blob(key: str, item: Mapping[str, Any]) -> Blob:
    """From the JSON API's item. The ETag is the one that a PUT to a signed URL answers with: the MD5 in hex."""
    md5 = base64.b64decode(item.get("md5Hash") or "").hex()
    return Blob(key, int(item.get("size") or 0), md5 or str(item["generation"]), str(item.get("contentType") or ""))


def _login(settings: Settings, http: Http, signs_as: str | None) -> tuple[Account, BearerToken]:
    if signs_as is not None and not EMAIL.fullmatch(signs_as):
        raise Invalid("MIXPEEK_BLOBS=gs://…?service_account= is not the e-mail address of a service account.")
    if settings.google_credentials is None:
        token = BearerToken(own_account())
        return KeptAccount(token, email=signs_as), token
    if signs_as is not None:
        raise Invalid(
            "MIXPEEK_BLOBS=gs://…?service_account= is for machines without a key file: leave it out, or unset "
            "GOOGLE_APPLICATION_CREDENTIALS."
        )
    credentials = key_file(settings.google_credentials)
    account = credentials.account
    token = BearerToken(service_account(credentials, http, scope=READ_WRITE))
    return AccountKey(account["client_email"], account["private_key"]), token
