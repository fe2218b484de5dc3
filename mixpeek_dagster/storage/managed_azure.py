"""Our own files in a container of the operator's at Azure Blob Storage, with URLs that allow one thing (SAS)."""

import base64
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import BinaryIO
from urllib.parse import quote, urlencode

from pydantic import ValidationError
from urllib3.response import BaseHTTPResponse

from mixpeek_dagster.errors import AlreadyExists, Changed, Invalid, ProviderDown
from mixpeek_dagster.models.values import utc_now
from mixpeek_dagster.settings import Settings
from mixpeek_dagster.storage.azure import API_VERSION, AzureCredentials, error_from
from mixpeek_dagster.storage.azure_login import own_identity
from mixpeek_dagster.storage.azure_sas import AccountKey, Login, OwnIdentity
from mixpeek_dagster.storage.blobs import Blob, Presigned, StoreUrl, attachment, check_key, check_one_put
from mixpeek_dagster.storage.http import Http, Request, body_stream, read_all
from mixpeek_dagster.storage.parts import READABLE, range_header
from mixpeek_dagster.storage.spool import spool
from mixpeek_dagster.storage.tokens import BearerToken, host_of

LARGEST_PUT = 5000 * 1024**2
"""What Azure takes in one request."""

COPIED_WITHIN_S = 120.0


class AzureBlobs:
    """Files below a prefix of a container. The operator's own account: its address is not checked as tenants' are."""

    is_remote = True

    def __init__(
        self,
        container: str,
        *,
        prefix: str = "",
        account: str,
        login: Login,
        base_url: str,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """`base_url` is that of the account's blob service."""
        self._container = container
        self._prefix = prefix
        self._account = account
        self._login = login
        self._base_url = base_url.rstrip("/")
        self._clock = clock

    @classmethod
    def at(cls, url: StoreUrl, *, settings: Settings) -> "AzureBlobs":
        """The store that `az://container/prefix?account_name=…&endpoint_url=…` names, with the key of the settings, else with this
        machine's own identity.

        Raises:
            Invalid: there is no account; its key is none; an identity would go out without TLS.
        """
        account = url.options.get("account_name") or settings.azure_account
        if account is None:
            raise Invalid("MIXPEEK_BLOBS=az://… needs a storage account: name it in AZURE_STORAGE_ACCOUNT, or as ?account_name=.")
        try:
            AzureCredentials.model_validate({"account_name": account, "account_key": settings.azure_key})
        except ValidationError as error:
            wrong = "AZURE_STORAGE_KEY" if error.errors()[0]["loc"] == ("account_key",) else f"The storage account {account!r}"
            raise Invalid(f"{wrong} is not of the form that Azure gives: copy it whole from the account's access keys.") from None
        base_url = url.options.get("endpoint_url", f"https://{account}.blob.core.windows.net")
        login = _login(account, settings, base_url)
        return cls(url.place, prefix=url.prefix, account=account, login=login, base_url=base_url)

    def put(
        self, key: str, source: BinaryIO, *, content_type: str = "", max_bytes: int | None = None, replace: bool = False
    ) -> Blob:
        most = LARGEST_PUT if max_bytes is None else min(max_bytes, LARGEST_PUT)
        spooled = spool(source, f"Blob {key}", limit=most)
        headers = {"Content-Length": str(spooled.size), "x-ms-blob-type": "BlockBlob"}
        headers["Content-Type"] = content_type or "application/octet-stream"
        if not replace:
            headers["If-None-Match"] = "*"
        response = self._send("PUT", key, headers, body=spooled.reopen)
        if response.status == 409 and response.headers.get("x-ms-error-code") == "BlobAlreadyExists":
            read_all(response)
            raise AlreadyExists(f"Blob {key} is there already.")
        self._expect(response, 201, key)
        return Blob(key, spooled.size, _etag(response), content_type, spooled.sha256.hex())

    @contextmanager
    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[BinaryIO]:
        response = self._send("GET", key, range_header(start, length))
        if response.status not in READABLE:
            raise self._error(response, key)
        with body_stream(response, host=host_of(self._base_url), start=start, length=length) as stream:
            yield stream

    def head(self, key: str) -> Blob | None:
        try:
            found = self._expect(self._send("HEAD", key), 200, key)
        except FileNotFoundError:
            return None
        return Blob(key, int(found.headers["Content-Length"]), _etag(found), found.headers.get("Content-Type", ""))

    def copy(self, key: str, to: str, *, etag: str) -> None:
        headers = {"x-ms-copy-source": self._url(key), "x-ms-source-if-match": f'"{etag}"'}
        try:
            response = self._expect(self._send("PUT", to, headers), 202, key)
        except Changed as error:
            if self.head(key) is None:  # Azure looks at the condition first
                raise FileNotFoundError(f"There is no blob {key}.") from error
            raise Changed(f"Blob {key} was replaced.") from error
        deadline = time.monotonic() + COPIED_WITHIN_S
        while (state := response.headers.get("x-ms-copy-status", "success")) == "pending":
            if time.monotonic() > deadline:
                raise ProviderDown(f"Azure is still copying blob {key} after {COPIED_WITHIN_S:.0f} s: try again.")
            time.sleep(0.2)
            response = self._expect(self._send("HEAD", to), 200, to)
        if state != "success":
            raise Changed(f"Blob {key} was not copied ({state}).")

    def delete(self, key: str) -> None:
        try:
            self._expect(self._send("DELETE", key, {"x-ms-delete-snapshots": "include"}), 202, key)
        except FileNotFoundError:
            return

    def remove_leftovers(self) -> int:
        return 0

    def presign_put(
        self, key: str, *, expires_s: int, content_type: str = "", size: int | None = None, max_bytes: int | None = None
    ) -> Presigned:
        """As the port says, once: the URL creates, and may not replace. Azure can hold a PUT neither to a type nor to a size."""
        if size is not None:
            check_one_put(size, largest=LARGEST_PUT, max_bytes=max_bytes)
        headers = {"x-ms-blob-type": "BlockBlob", **({"Content-Type": content_type} if content_type else {})}
        return self._presign("PUT", "c", key, expires_s=expires_s, headers=headers)

    def presign_get(self, key: str, *, expires_s: int, content_type: str = "", filename: str = "") -> Presigned:
        answered = {"rscd": attachment(filename) if filename else "", "rsct": content_type}
        return self._presign("GET", "r", key, expires_s=expires_s, answered=answered)

    def _presign(
        self,
        method: str,
        permissions: str,
        key: str,
        *,
        expires_s: int,
        headers: dict[str, str] | None = None,
        answered: Mapping[str, str] | None = None,
    ) -> Presigned:
        expires_at = self._clock().astimezone(UTC).replace(microsecond=0) + timedelta(seconds=expires_s)
        sas = {
            "sv": API_VERSION,
            "sr": "b",
            "sp": permissions,
            "se": expires_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "spr": "https" if self._base_url.startswith("https:") else "",
            **(answered or {}),
        }
        sas = self._login.signed(sas, f"/blob/{self._account}/{self._container}/{self._name(key)}")
        url = f"{self._url(key)}?{urlencode({name: value for name, value in sas.items() if value}, quote_via=quote)}"
        return Presigned(method=method, url=url, headers=headers or {}, expires_at=expires_at)

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _url(self, key: str) -> str:
        return f"{self._base_url}/{quote(self._container)}/{quote(self._name(key))}"

    def _send(
        self,
        method: str,
        key: str,
        headers: Mapping[str, str] | None = None,
        *,
        body: Callable[[], bytes | BinaryIO] | None = None,
    ) -> BaseHTTPResponse:
        return self._login.send(lambda: Request(method, self._url(key), headers or {}, body() if body else None))

    def _expect(self, response: BaseHTTPResponse, status: int, key: str) -> BaseHTTPResponse:
        if response.status != status:
            raise self._error(response, key)
        read_all(response)  # nothing, but the connection is free again
        return response

    def _error(self, response: BaseHTTPResponse, key: str) -> Exception:
        return error_from(response, f"Blob {key} in {self._account}/{self._container}", also=self._login.meanings)


def _login(account: str, settings: Settings, base_url: str) -> Login:
    http = Http(allowed_hosts={host_of(base_url)}, host_from="MIXPEEK_BLOBS")
    if settings.azure_key is not None:
        return AccountKey(account, base64.b64decode(settings.azure_key), http=http)
    if not base_url.startswith("https:"):
        raise Invalid(
            "MIXPEEK_BLOBS=az://… without AZURE_STORAGE_KEY signs with this machine's identity, whose token goes over TLS only: write "
            "https:// in endpoint_url, or give the account's key."
        )
    otherwise = "name one in AZURE_CLIENT_ID, or give the account's key in AZURE_STORAGE_KEY"
    identity = settings.azure_identity
    return OwnIdentity(BearerToken(own_identity(identity, identity.client, otherwise=otherwise)), http=http, base_url=base_url)


def _etag(response: BaseHTTPResponse) -> str:
    return str(response.headers.get("ETag", "")).strip('"')
