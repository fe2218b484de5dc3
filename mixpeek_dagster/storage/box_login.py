"""Logging in to Box: OAuth with tokens that work once, client credentials, or a signed assertion."""

import time
import uuid
from collections.abc import Callable, Mapping
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, SecretStr, model_validator

from mixpeek_dagster.errors import AccessDenied
from mixpeek_dagster.storage.http import Http
from mixpeek_dagster.storage.tokens import UNKNOWN_S, Grant, TokenKeeper, ask_for_token, form_request, sign_jwt


class BoxCredentials(BaseModel):
    """One of `oauth` (a user's tokens), `ccg` (client credentials) or `jwt` (a key pair). `type` follows from the fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["oauth", "ccg", "jwt"] | None = None
    client_id: str
    client_secret: SecretStr
    access_token: SecretStr | None = None
    refresh_token: SecretStr | None = None
    enterprise_id: str | None = None
    user_id: str | None = None
    jwt_key_id: str | None = None
    private_key: SecretStr | None = None
    private_key_passphrase: SecretStr | None = None

    @property
    def kind(self) -> str:
        return self.type or ("jwt" if self.private_key else "oauth" if self.access_token else "ccg")

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.kind == "oauth" and self.access_token is None:
            raise ValueError("credentials of type oauth need access_token")
        if self.kind == "ccg" and not (self.enterprise_id or self.user_id):
            raise ValueError("credentials of type ccg need enterprise_id or user_id")
        if self.kind == "jwt" and not (self.private_key and self.jwt_key_id and self.enterprise_id):
            raise ValueError("credentials of type jwt need enterprise_id, jwt_key_id and private_key")
        return self


def fetcher(credentials: BoxCredentials, http: Http, url: str, tokens: TokenKeeper | None) -> Callable[[], Grant]:
    """What asks Box for a token: with a user's pair (OAuth), as the app itself (CCG), or with a signed assertion (JWT)."""
    app = {"client_id": credentials.client_id, "client_secret": credentials.client_secret.get_secret_value()}
    if credentials.kind == "oauth":
        return _OAuth(credentials, app, http, url, tokens)
    kind, subject = ("user", credentials.user_id) if credentials.user_id else ("enterprise", credentials.enterprise_id)

    def fetch() -> Grant:
        if credentials.kind == "ccg":
            fields = {"grant_type": "client_credentials", "box_subject_type": kind, "box_subject_id": str(subject), **app}
        else:
            fields = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion(), **app}
        return ask_for_token(http, lambda: form_request(url, fields), who="Box")

    def assertion() -> str:
        claims = {
            "iss": credentials.client_id,
            "sub": subject,
            "box_sub_type": kind,
            "aud": "https://api.box.com/oauth2/token",
            "jti": uuid.uuid4().hex,
            "exp": int(time.time()) + 45,
        }
        return sign_jwt(
            claims,
            private_key=credentials.private_key.get_secret_value() if credentials.private_key else "",
            passphrase=credentials.private_key_passphrase.get_secret_value() if credentials.private_key_passphrase else None,
            key_id=credentials.jwt_key_id,
            hash_bits=512,
        )

    return fetch


class _OAuth:
    """A user's tokens: the pair that was kept last, else the one that was given, then one for the refresh token.

    A refresh token works once. So what it was changed for is kept before it is used; and when it is refused, another process
    was probably faster, and has kept a pair that works, or is about to.
    """

    def __init__(
        self, credentials: BoxCredentials, app: Mapping[str, str], http: Http, url: str, tokens: TokenKeeper | None
    ) -> None:
        access = credentials.access_token.get_secret_value() if credentials.access_token else ""
        refresh = credentials.refresh_token.get_secret_value() if credentials.refresh_token else None
        self._now = Grant(access, UNKNOWN_S, refresh)
        self._app, self._http, self._url, self._tokens = app, http, url, tokens
        self._is_first, self._is_kept = True, True

    def __call__(self) -> Grant:
        if self._adopt() or self._is_first:
            self._is_first = False
            return self._now
        if self._is_kept:
            if not self._now.refresh_token:
                raise AccessDenied(
                    "Box refused the access token, and the connection has no refresh_token: log in again, or use ccg."
                )
            try:
                self._change(self._now.refresh_token)
            except AccessDenied as error:
                if self._others_pair():
                    return self._now
                raise AccessDenied(
                    f"{error.message} A refresh token works once: log in again, and give the connection the new pair."
                ) from error
        if self._tokens is not None:
            self._tokens.save(self._now)  # when this fails, nothing has used the pair, and the next call keeps it
        self._is_kept = True
        return self._now

    def _change(self, refresh_token: str) -> None:
        fields = {"grant_type": "refresh_token", "refresh_token": refresh_token, **self._app}
        grant = ask_for_token(self._http, lambda: form_request(self._url, fields), who="Box")
        self._now, self._is_kept = grant._replace(refresh_token=grant.refresh_token or refresh_token), False

    def _others_pair(self) -> bool:
        """Whether a pair turns up that another process was given for the same refresh token; it may still be on its way."""
        for attempt in range(self._http.backoff.tries):
            if self._adopt():
                return True
            wait_s = self._http.backoff.wait_s(attempt, None) if self._tokens is not None else None
            if wait_s is None:
                break
            self._http.backoff.sleep(wait_s)
        return False

    def _adopt(self) -> bool:
        """Take over the pair that was kept, if it is another one."""
        kept = self._tokens.load() if self._tokens is not None and self._is_kept else None
        if kept is None or kept.refresh_token == self._now.refresh_token:
            return False
        self._now = kept
        return True
