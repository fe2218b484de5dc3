"""Who asks Azure Blob Storage in our name, and signs its URLs (SAS): the account's key, or this machine's identity.

An identity has Azure make a user delegation key for it, which signs as the account's key does. Source: "Create a service SAS", "Create a
user delegation SAS" and "Get User Delegation Key" in the reference of Azure Storage, as of version 2020-12-06.
"""

import base64
import hashlib
import hmac
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol

from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from mixpeek_dagster.errors import AccessDenied, Invalid, ProviderDown
from mixpeek_dagster.models.values import utc_now
from mixpeek_dagster.storage.azure import Meaning, dated, error_from, sign
from mixpeek_dagster.storage.http import Http, Request, read_chunks
from mixpeek_dagster.storage.tokens import BearerToken, send_as
from mixpeek_dagster.storage.xml_answers import parse_xml

KEY_LASTS = timedelta(days=6)
"""Azure allows seven days by its own clock."""

KEPT = timedelta(hours=1)
"""A key is replaced long before its end, as it may be revoked, and nobody tells us."""

BEGUN = timedelta(minutes=10)
"""So long before now a key begins, as clocks differ."""

KEY_FIELDS = {
    "skoid": "SignedOid",
    "sktid": "SignedTid",
    "skt": "SignedStart",
    "ske": "SignedExpiry",
    "sks": "SignedService",
    "skv": "SignedVersion",
}
"""Parameter of a URL → what Azure calls it in its answer."""

NO_TOKEN = "the token of this machine's identity is not taken: check that it is of the account's tenant, and this machine's clock"  # noqa: S105 - no secret
NO_ROLE = "give this machine's identity the role Storage Blob Data Contributor for the container"
NO_KEY = "give this machine's identity the role Storage Blob Delegator for the storage account, or set AZURE_STORAGE_KEY"


class Login(Protocol):
    """Safe to share between threads. `meanings` says what refusals (`x-ms-error-code`) mean, where not what they mean to syncs."""

    meanings: Mapping[str, Meaning]

    def send(self, make_request: Callable[[], Request]) -> BaseHTTPResponse:
        """The answer to a request in our name, as of `Http.send`."""
        ...

    def signed(self, sas: Mapping[str, str], resource: str) -> dict[str, str]:
        """The fields of a SAS for one blob, `/blob/account/container/name`, with its signature.

        Raises:
            Invalid: nothing signs for that long. ProviderError: Azure gave no key to sign with.
        """
        ...


class AccountKey:
    """The key of a storage account."""

    meanings: Mapping[str, Meaning] = {
        "AuthenticationFailed": (AccessDenied, "check AZURE_STORAGE_KEY, and this machine's clock"),
        "KeyBasedAuthenticationNotPermitted": (
            AccessDenied,
            "the account allows no account keys: unset AZURE_STORAGE_KEY, and this machine's identity signs",
        ),
    }

    def __init__(self, account: str, secret: bytes, *, http: Http) -> None:
        """`secret` is the key, decoded."""
        self._account = account
        self._secret = secret
        self._http = http

    def send(self, make_request: Callable[[], Request]) -> BaseHTTPResponse:
        return self._http.send(lambda: sign(dated(make_request()), account=self._account, secret=self._secret))

    def signed(self, sas: Mapping[str, str], resource: str) -> dict[str, str]:
        return {**sas, "sig": _signature(sas, resource, ("si",), secret=self._secret)}


class DelegationKey(NamedTuple):
    """A user delegation key. `fields` stand in each URL that it signs."""

    fields: Mapping[str, str]
    secret: bytes
    expires_at: datetime


class OwnIdentity:
    """The identity that Azure gives to this machine, with a key of its own from Azure."""

    meanings: Mapping[str, Meaning] = {
        "AuthenticationFailed": (AccessDenied, NO_TOKEN),
        "InvalidAuthenticationInfo": (AccessDenied, NO_TOKEN),
        "AuthorizationPermissionMismatch": (AccessDenied, NO_ROLE),
        "InsufficientAccountPermissions": (AccessDenied, NO_ROLE),
    }

    def __init__(self, token: BearerToken, *, http: Http, base_url: str, clock: Callable[[], datetime] = utc_now) -> None:
        """`base_url` is that of the account's blob service."""
        self._token = token
        self._http = http
        self._base_url = base_url.rstrip("/")
        self._clock = clock
        self._lock = threading.Lock()
        self._key: DelegationKey | None = None
        self._renew_at = datetime.min.replace(tzinfo=UTC)

    def send(self, make_request: Callable[[], Request]) -> BaseHTTPResponse:
        return send_as(self._token, self._http, lambda: dated(make_request()))

    def signed(self, sas: Mapping[str, str], resource: str) -> dict[str, str]:
        key = self._key_until(datetime.fromisoformat(sas["se"]))
        fields = {**sas, **key.fields}
        return {**fields, "sig": _signature(fields, resource, (*KEY_FIELDS, "saoid", "suoid", "scid"), secret=key.secret)}

    def _key_until(self, end: datetime) -> DelegationKey:
        """A key that outlives a URL which ends then; one thread fetches it, the others wait."""
        with self._lock:
            now = self._clock()
            if self._key is None or now >= self._renew_at or end > self._key.expires_at:
                self._key, self._renew_at = self._fetch(now), now + KEPT
            if end > self._key.expires_at:
                raise Invalid(
                    f"A URL that an identity of Azure signs ends with its key, at {self._key.expires_at:%Y-%m-%dT%H:%M:%SZ}."
                )
            return self._key

    def _fetch(self, now: datetime) -> DelegationKey:
        start, end = (f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" for moment in (now - BEGUN, now + KEY_LASTS))
        body = f'<?xml version="1.0" encoding="utf-8"?><KeyInfo><Start>{start}</Start><Expiry>{end}</Expiry></KeyInfo>'.encode()
        url = f"{self._base_url}/?restype=service&comp=userdelegationkey"
        response = self.send(lambda: Request("POST", url, {"Content-Type": "application/xml"}, body))
        if response.status != 200:
            lacking = (AccessDenied, NO_KEY)
            roles = {"AuthorizationPermissionMismatch": lacking, "InsufficientAccountPermissions": lacking}
            raise error_from(response, f"The user delegation key of {self._base_url}", also={**self.meanings, **roles})
        try:
            return _read_key(read_chunks(response))
        except (ValueError, LookupError, HTTPError) as error:
            raise ProviderDown(f"{self._base_url} answered without a user delegation key: is endpoint_url right?") from error
        finally:
            response.release_conn()


def _read_key(chunks: Iterable[bytes]) -> DelegationKey:
    told = {element.tag: element.text or "" for element in parse_xml(chunks)}
    fields = {name: told[tag] for name, tag in KEY_FIELDS.items()}
    secret = base64.b64decode(told["Value"], validate=True)
    if not (secret and all(fields.values())):
        raise ValueError("the key is not whole")
    return DelegationKey(fields, secret, datetime.fromisoformat(told["SignedExpiry"]).astimezone(UTC))


def _signature(sas: Mapping[str, str], resource: str, who: Iterable[str], *, secret: bytes) -> str:
    """Of a SAS for one blob (the order of fields is Azure's); `who` are the fields that say who signs."""
    before, after = ("sp", "st", "se"), ("sip", "spr", "sv", "sr", "snapshot", "ses", "rscc", "rscd", "rsce", "rscl", "rsct")
    fields = [*(sas.get(name, "") for name in before), resource, *(sas.get(name, "") for name in (*who, *after))]
    return base64.b64encode(hmac.new(secret, "\n".join(fields).encode(), hashlib.sha256).digest()).decode()
