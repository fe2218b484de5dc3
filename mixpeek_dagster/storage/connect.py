"""From a provider's name and a connection's settings to an open `ObjectSource`."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from mixpeek_dagster import plugins
from mixpeek_dagster.errors import Invalid
from mixpeek_dagster.settings import Settings
from mixpeek_dagster.storage.provider import ObjectSource
from mixpeek_dagster.storage.tokens import TokenKeeper

ALIASES: dict[str, str] = {
    "aws": "s3",
    "aws_s3": "s3",
    "azure": "azure_blob",
    "azureblob": "azure_blob",
    "b2": "backblaze",
    "backblaze_b2": "backblaze",
    "cloudflare_r2": "r2",
    "file": "local",
    "google": "gcs",
    "google_cloud_storage": "gcs",
    "gs": "gcs",
}
"""Other names that people give to providers."""

FSSPEC = "fsspec+"


def canonical(provider: str) -> str:
    """The registered name behind what a user wrote: `b2`, `Backblaze` and `backblaze_b2` are all `backblaze`."""
    name = provider if ":" in provider else provider.strip().lower().replace("-", "_").replace(" ", "_")
    return ALIASES.get(name, name)


def read_config(provider: str, config: Mapping[str, Any]) -> BaseModel:
    """Validate a connection's settings against the provider's own model. `provider_type`, which the API repeats, is passed over.

    Raises:
        UnknownName: nobody registered the provider.
        Invalid: the settings do not fit; `details["errors"]` holds (loc, msg, type) of each fault, never a value.
    """
    name = canonical(provider)
    given = {key: value for key, value in config.items() if key != "provider_type"}
    if name.startswith(FSSPEC):
        name, given = "fsspec", {"protocol": name.removeprefix(FSSPEC), **given}
    model: type[BaseModel] = plugins.load("providers", name).Config
    if "provider" in model.model_fields:
        given["provider"] = name
    try:
        return model.model_validate(given)
    except ValidationError as error:
        # `from None`: the pydantic error quotes the input, and that holds secrets.
        raise _as_invalid(provider, error) from None


def open_source(
    provider: str, config: Mapping[str, Any], *, source_path: str, settings: Settings, tokens: TokenKeeper | None = None
) -> ObjectSource:
    """A source of files. Nothing is contacted yet: call `check()` to find out whether it works.

    Args:
        provider: a registered name or an alias, `fsspec+<protocol>`, or a dotted path `package.module:Class`.
        config: the connection's settings, secrets in plain (references to the environment already resolved).
        source_path: as the user wrote it: `/videos/`, `bucket/videos`, `s3://bucket/videos`, `/mnt/archive`, a Box folder id.
        settings: the operator's limits: hosts, folders, use of this machine's own credentials.
        tokens: keeps the tokens that a provider changes while it is used (`rotates_tokens`).

    Raises:
        UnknownName: nobody registered the provider.
        Invalid: settings or path do not fit, or the operator does not allow the place.
        MissingExtra: the provider's client is not installed.
    """
    model = read_config(provider, config)
    name = canonical(provider)
    kind = plugins.load("providers", "fsspec" if name.startswith(FSSPEC) else name)
    kept = {"tokens": tokens} if getattr(kind, "rotates_tokens", False) else {}
    source: ObjectSource = kind.connect(model, source_path=source_path, settings=settings, **kept)
    return source


_SHOWN = 20


def _as_invalid(provider: str, error: ValidationError) -> Invalid:
    faults = [
        {"loc": [str(part) for part in fault["loc"]], "msg": fault["msg"], "type": fault["type"]}
        for fault in error.errors(include_input=False, include_url=False, include_context=False)[:_SHOWN]
    ]
    shown = "; ".join(": ".join(filter(None, [".".join(fault["loc"]), str(fault["msg"])])) for fault in faults)
    return Invalid(f"The connection's settings do not fit provider {provider!r}: {shown}.", details={"errors": faults})
