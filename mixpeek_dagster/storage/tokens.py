"""Bearer tokens for providers that want one (GCS, Azure, Box): fetched when needed, kept until shortly before they expire."""

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlencode, urlsplit

from urllib3.response import BaseHTTPResponse

from mixpeek_dagster.errors import AccessDenied, Invalid
from mixpeek_dagster.storage.http import LONGEST_ERROR_BODY, Http, Request, no_answer_now
from mixpeek_dagster.storage.json_answers import MALFORMED, read_json

RENEW_BEFORE_S = 120.0

_CLOCK = re.compile(r"\b(iat|exp|clock|timeframe)\b")
"""What providers speak of when the times of an assertion are not theirs."""

UNKNOWN_S = 3600.0
"""What is taken for the lifetime of a token that was handed over without one; a refusal renews it before that."""


class Grant(NamedTuple):
    """A token and how long it lasts, in seconds. `refresh_token` gets the next one where the provider works that way."""

    access_token: str
    lasts_s: float
    refresh_token: str | None = None


class TokenKeeper(Protocol):
    """Keeps the newest pair of tokens of a connection whose refresh tokens work once, for all processes that use it."""

    def load(self) -> Grant | None:
        """The newest pair that was kept; None while the connection's own is the newest."""
        ...

    def save(self, grant: Grant) -> None:
        """Keep a pair, durably: called before the pair is used for anything, as the one before it is worthless by then."""
        ...


class BearerToken:
    """A token that renews itself. Safe to share between threads: one of them fetches, the others wait."""

    def __init__(self, fetch: Callable[[], Grant]) -> None:
        self._fetch = fetch
        self._lock = threading.Lock()
        self._token = ""
        self._renew_at = 0.0

    def value(self) -> str:
        with self._lock:
            if time.monotonic() >= self._renew_at:
                grant = self._fetch()
                self._token = grant.access_token
                self._renew_at = time.monotonic() + max(grant.lasts_s - RENEW_BEFORE_S, grant.lasts_s / 2)
            return self._token

    def forget(self) -> None:
        """The provider refused the token: fetch another one next time."""
        with self._lock:
            self._renew_at = 0.0


def send_as(token: BearerToken | None, http: Http, make_request: Callable[[], Request]) -> BaseHTTPResponse:
    """The answer to a request with the token; one that is refused is renewed once. Without a token, as it is made."""

    def request() -> Request:
        made = make_request()
        bearer = {"Authorization": f"Bearer {token.value()}"} if token else {}
        return made._replace(headers={**bearer, **made.headers})

    response = http.send(request)
    if response.status == 401 and token is not None:
        response.close()
        token.forget()
        response = http.send(request)
    return response


def ask_for_token(
    http: Http, request: Callable[[], Request], *, who: str, remedy: str = "check the connection's credentials"
) -> Grant:
    """An OAuth 2 token answer. `remedy` is what to do where `who` refuses to give one.

    Raises:
        AccessDenied: the provider refused the credentials; what it says of them is quoted.
        ProviderDown: it did not answer with a token.
    """
    response = http.send(request)
    try:
        answer = read_json(response, limit=LONGEST_ERROR_BODY)
        if response.status == 200:
            lasts_s = answer.get("expires_in") or float(answer.get("expires_on") or time.time() + UNKNOWN_S) - time.time()
            return Grant(str(answer["access_token"]), float(lasts_s), answer.get("refresh_token"))
        told = str(answer.get("error_description") or "")[:200].rstrip(".")
        code = ": ".join(filter(None, [str(answer.get("error") or response.status)[:60], told]))
    except MALFORMED:
        code = str(response.status)
    if 400 <= response.status < 500 and response.status != 429:
        wrong = "set this machine's clock" if _CLOCK.search(code) else remedy
        raise AccessDenied(f"{who} gave no token ({code}): {wrong}.")
    raise no_answer_now(f"{who} gave no token ({code})", response.headers)


def form_request(url: str, fields: Mapping[str, str]) -> Request:
    """A POST of form fields."""
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
    return Request("POST", url, headers, urlencode(fields).encode())


def sign_jwt(
    claims: Mapping[str, Any], *, private_key: str, passphrase: str | None = None, key_id: str | None = None, hash_bits: int = 256
) -> str:
    """A JSON Web Token signed with an RSA key (RS256 or RS512).

    Raises:
        Invalid: the private key cannot be read (not PEM, not RSA, wrong passphrase).
    """
    key = RsaKey(private_key, passphrase=passphrase)
    header = {"alg": f"RS{hash_bits}", "typ": "JWT", **({"kid": key_id} if key_id else {})}
    signed = f"{_base64url(json.dumps(header).encode())}.{_base64url(json.dumps(dict(claims)).encode())}"
    return f"{signed}.{_base64url(key.sign(signed.encode(), hash_bits=hash_bits))}"


class RsaKey:
    """A private key that signs as providers want it: PKCS #1 v1.5."""

    def __init__(self, pem: str, *, passphrase: str | None = None) -> None:
        """Raises Invalid: the key cannot be read (not PEM, not RSA, wrong passphrase)."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        try:
            key = serialization.load_pem_private_key(pem.encode(), passphrase.encode() if passphrase else None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise Invalid("The private key cannot be read: it must be PEM, with its passphrase if it has one.") from None
        if not isinstance(key, rsa.RSAPrivateKey):
            raise Invalid("The private key is not an RSA key.")
        self._key = key

    def sign(self, data: bytes, *, hash_bits: int = 256) -> bytes:
        """The signature of the data's SHA-256, or SHA-512."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import padding

        return self._key.sign(data, padding.PKCS1v15(), hashes.SHA512() if hash_bits == 512 else hashes.SHA256())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def host_of(url: str) -> str:
    """The `host` of a URL, for messages."""
    return urlsplit(url).hostname or ""
