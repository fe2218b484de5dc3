"""Connections: how to reach a provider, with its secrets encrypted at rest.

A config's `credentials` and `options` are the secret part. A value in them may be `{"env": "MIXPEEK_…"}` instead, read from the
environment when used; the server's own settings cannot be read that way.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from secrets import token_hex
from typing import Any

from mixpeek_dagster.errors import Invalid
from mixpeek_dagster.models.ids import ConnectionId, new_id
from mixpeek_dagster.models.syncs import Connection, ConnectionSpec
from mixpeek_dagster.settings import OWN_VARIABLES, Settings

_ENV_PREFIX = "MIXPEEK_"
_SECRET = ("credentials", "options", "tokens")  # fsspec's options carry users and passwords


def make_connection(
    spec: ConnectionSpec, *, settings: Settings, now: str, name: str | None = None
) -> tuple[Connection, str | None]:
    """A connection to record, its body free of secrets, and the ciphertext of its credentials."""
    connection_id = ConnectionId(new_id("conn"))
    body = {key: value for key, value in spec.config.items() if key not in _SECRET}
    hidden = {key: spec.config[key] for key in _SECRET if spec.config.get(key)}
    credentials = hidden.get("credentials")
    kind = credentials.get("type") if isinstance(credentials, Mapping) else None
    if credentials:
        body["credentials"] = {"type": kind} if kind else {}
    secrets = encrypt(json.dumps(hidden), settings) if hidden else None
    connection = Connection(
        connection_id=connection_id,
        name=name or connection_id,
        provider=spec.provider,
        config=body,
        created_at=now,
        updated_at=now,
    )
    return connection, secrets


def open_config(body: Mapping[str, Any], secrets: str | None, *, settings: Settings) -> dict[str, Any]:
    """The whole config, secrets decrypted and `{"env": …}` references read.

    Raises:
        Invalid: a referenced variable is unset or not allowed, or the key that encrypted the secrets is gone.
    """
    config = {key: value for key, value in body.items() if key not in _SECRET}
    if secrets is not None:
        config |= _resolve(unseal(secrets, settings))
    config.pop("tokens", None)
    return config


def unseal(secrets: str, settings: Settings) -> dict[str, Any]:
    """The secret part of a config as it was given: `credentials`, `options`, and the `tokens` that were kept since."""
    hidden: dict[str, Any] = json.loads(decrypt(secrets, settings))
    return hidden


def _resolve(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if set(value) == {"env"}:
        name = str(value["env"])
        if not name.startswith(_ENV_PREFIX):
            raise Invalid(f"Credentials may only name environment variables that start with {_ENV_PREFIX}, not {name!r}.")
        if name in OWN_VARIABLES:
            raise Invalid(f"Credentials may not name {name}: it is a setting of the server itself.")
        if name not in os.environ:
            raise Invalid(f"Environment variable {name}, which the credentials name, is not set for this process.")
        return os.environ[name]
    return {key: _resolve(inner) for key, inner in value.items()}


def _fernet(settings: Settings) -> Any:
    from cryptography.fernet import Fernet, MultiFernet

    keys = [key.strip() for key in (settings.secret_key or "").split(",") if key.strip()]
    try:
        return MultiFernet([Fernet(key) for key in keys or [_own_key(settings.home / "secret.key")]])
    except ValueError:  # `from None`: the message might quote the key
        raise Invalid("A key in MIXPEEK_SECRET_KEY is not a Fernet key: 32 bytes in URL-safe base64.") from None


def signing_key(settings: Settings) -> bytes:
    """A key for signatures, derived from the one that encrypts credentials: the newest, so a rotation ends old URLs."""
    keys = [key.strip() for key in (settings.secret_key or "").split(",") if key.strip()]
    secret = keys[0] if keys else _own_key(settings.home / "secret.key")
    return hashlib.blake2b(secret.encode(), person=b"signed urls", digest_size=32).digest()


def _own_key(file: Path) -> str:
    """The key kept beside the catalog, made on first use: readable by its owner only, and never replaced."""
    from cryptography.fernet import Fernet

    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        draft = file.with_suffix(f".{token_hex(8)}")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
            stream.write(Fernet.generate_key())
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(draft, file)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return file.read_text()


def encrypt(text: str, settings: Settings) -> str:
    return str(_fernet(settings).encrypt(text.encode()).decode())


def decrypt(ciphertext: str, settings: Settings) -> str:
    from cryptography.fernet import InvalidToken

    try:
        return str(_fernet(settings).decrypt(ciphertext.encode()).decode())
    except InvalidToken as error:
        raise Invalid("Stored credentials cannot be decrypted: set MIXPEEK_SECRET_KEY to the key that encrypted them.") from error
