"""Resources of dagster-aws and dagster-gcp as the connection of a sync: one place for credentials in a project that has them already.

In Python, `{**sync_of(s3, bucket="films"), "sync_config": {…}}` is a sync's body. In YAML, `connection: {resource: my_project.resources:s3,
bucket: films}` names the object. Keys that the resource takes from `EnvVar("MIXPEEK_…")` stay references to the environment; others
are read once and encrypted with the connection.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import dagster as dg

from mixpeek_dagster.errors import Invalid
from mixpeek_dagster.pipeline.manifest import Manifest

_OWN_PREFIX = "MIXPEEK_"


def sync_of(resource: object, **more: Any) -> dict[str, Any]:
    """`provider` and `connection` of a sync that goes where a resource goes.

    Args:
        resource: an `S3Resource` or a `GCSResource`.
        more: what else the connection says: `bucket`, `prefix`, `endpoint_url`, `provider`-specific settings; wins over the resource.
            How often a request is tried is not the resource's `max_attempts` but the same for all providers.

    Raises:
        Invalid: another kind of resource, or one whose settings have no counterpart here.
    """
    known = next((read for name, read in _READERS.items() if any(_name(base) == name for base in type(resource).__mro__)), None)
    if known is None:
        raise Invalid(f"{type(resource).__name__} cannot be a sync's connection; {', '.join(_READERS)} can.")
    made = known(resource)
    return {"provider": made["provider"], "connection": {**made["connection"], **more}}


def with_resources(manifest: Manifest) -> Manifest:
    """The manifest with every connection that is or names a resource replaced by what the resource says."""
    buckets = {}
    for name, bucket in manifest.buckets.items():
        syncs = {sync_name: _resolved(sync, f"Sync {sync_name}") for sync_name, sync in bucket.syncs.items()}
        buckets[name] = bucket.model_copy(update={"syncs": syncs})
    return manifest.model_copy(update={"buckets": buckets})


def _resolved(sync: Mapping[str, Any], owner: str) -> dict[str, Any]:
    connection = sync.get("connection")
    if isinstance(connection, dg.ConfigurableResource):
        made = sync_of(connection)
    elif isinstance(connection, Mapping) and "resource" in connection:
        more = {name: value for name, value in connection.items() if name != "resource"}
        made = sync_of(_load(connection["resource"], owner), **more)
    else:
        return dict(sync)
    # A relative of S3 keeps its name, as its preset says what the resource does not.
    return {**made, **{name: value for name, value in sync.items() if name != "connection"}}


def _load(path: object, owner: str) -> object:
    module, _, attribute = str(path).partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise Invalid(f"{owner}: resource {path!r} cannot be loaded, expected package.module:attribute ({error}).") from error


def _s3(resource: Any) -> dict[str, Any]:
    if resource.profile_name or resource.use_unsigned_session:
        raise Invalid(
            "An S3Resource with profile_name or use_unsigned_session cannot be a sync's connection: give it keys, or none and let "
            "the operator set AWS_PROFILE and MIXPEEK_AMBIENT_CREDENTIALS=1."
        )
    connection: dict[str, Any] = {"use_ssl": resource.use_ssl, "verify_ssl": resource.verify is not False}
    for name, value in (("region", resource.region_name), ("endpoint_url", resource.endpoint_url)):
        if value is not None:
            connection[name] = _text(value)
    names = {
        "access_key_id": resource.aws_access_key_id,
        "secret_access_key": resource.aws_secret_access_key,
        "session_token": resource.aws_session_token,
    }
    credentials = {name: _secret(value) for name, value in names.items() if value is not None}
    return {"provider": "s3", "connection": {**connection, **({"credentials": credentials} if credentials else {})}}


def _gcs(resource: Any) -> dict[str, Any]:
    """Its client uses this machine's own credentials, and so does the sync: the operator has to allow that, see the settings."""
    return {"provider": "gcs", "connection": {"project_id": _text(resource.project)} if resource.project else {}}


_READERS: Mapping[str, Callable[[Any], dict[str, Any]]] = {"dagster_aws.S3Resource": _s3, "dagster_gcp.GCSResource": _gcs}


def _name(kind: type) -> str:
    return f"{kind.__module__.partition('.')[0]}.{kind.__name__}"


def _text(value: Any) -> str:
    return str(value.get_value()) if isinstance(value, dg.EnvVar) else str(value)


def _secret(value: Any) -> Any:
    """A secret as a connection takes it: a variable with our prefix stays a reference, so that it may change."""
    if not isinstance(value, dg.EnvVar):
        return value
    if value.env_var_name.startswith(_OWN_PREFIX):
        return {"env": value.env_var_name}
    found = value.get_value()
    if not found:
        raise Invalid(f"Environment variable {value.env_var_name}, which the resource names, is not set.")
    return found
