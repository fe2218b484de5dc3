"""URLs of Google Cloud Storage that a service account signs, as the service's V4 process with RSA defines it.

Source: "V4 signing process", "Canonical requests", "Signatures" in the documentation of Cloud Storage.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Protocol
from urllib.parse import quote, urlsplit

from mixpeek_dagster.storage.tokens import RsaKey

ALGORITHM = "GOOG4-RSA-SHA256"
LONGEST_S = 7 * 24 * 3600


class Account(Protocol):
    """A service account that signs. Failures are `ProviderError`s."""

    def email(self) -> str: ...

    def sign(self, data: bytes) -> bytes:
        """The signature of the data's SHA-256 with a key of the account (PKCS #1 v1.5)."""
        ...


class AccountKey:
    """An account whose key file is here. Safe to share between threads."""

    def __init__(self, email: str, private_key: str) -> None:
        """`private_key` is PEM. Raises Invalid: it cannot be read."""
        self._email = email
        self._key = RsaKey(private_key)

    def email(self) -> str:
        return self._email

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)


class UrlSigner:
    """Signs in the name of one service account. Safe to share between threads."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def sign(
        self,
        method: str,
        url: str,
        *,
        expires_s: int,
        now: datetime,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> str:
        """The URL with a signature, good from `now` (UTC) for `expires_s` seconds, at most `LONGEST_S`.

        Args:
            url: percent-encoded, without a query.
            headers: must be sent just so. Others may be sent too, but none that begin with `x-goog-`.
            query: parameters to sign along.
        """
        email = self._account.email()
        asked, text = to_sign(method, url, email=email, expires_s=expires_s, now=now, headers=headers, query=query)
        return f"{url}?{asked}&X-Goog-Signature={self._account.sign(text.encode()).hex()}"


def to_sign(
    method: str,
    url: str,
    *,
    email: str,
    expires_s: int,
    now: datetime,
    headers: Mapping[str, str] | None = None,
    query: Mapping[str, str] | None = None,
) -> tuple[str, str]:
    """The query of a signed URL, all but its signature, and the text that is signed; arguments as of `UrlSigner.sign`."""
    parts = urlsplit(url)
    sent = {"host": parts.netloc, **{name.lower(): " ".join(value.split()) for name, value in (headers or {}).items()}}
    names, time = ";".join(sorted(sent)), now.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{now:%Y%m%d}/auto/storage/goog4_request"
    asked = {
        "X-Goog-Algorithm": ALGORITHM,
        "X-Goog-Credential": f"{email}/{scope}",
        "X-Goog-Date": time,
        "X-Goog-Expires": str(expires_s),
        "X-Goog-SignedHeaders": names,
        **(query or {}),
    }
    canonical_query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(asked.items()))
    canonical_headers = "".join(f"{name}:{sent[name]}\n" for name in sorted(sent))
    canonical = "\n".join([method, parts.path, canonical_query, canonical_headers, names, "UNSIGNED-PAYLOAD"])
    return canonical_query, "\n".join([ALGORITHM, time, scope, hashlib.sha256(canonical.encode()).hexdigest()])
