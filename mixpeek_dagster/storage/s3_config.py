"""What a connection to S3 or one of its relatives says: place, endpoint, credentials. Values only, no network.

The relatives differ by the `PRESETS` table: where their endpoint is, what their region is called, how they address buckets.
"""

import re
from typing import Literal, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, model_validator

from mixpeek_dagster.errors import Invalid
from mixpeek_dagster.storage import places
from mixpeek_dagster.storage.places import Place, ServerUrl

Label = Field(default=None, pattern=r"^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$")


class Preset(NamedTuple):
    """Endpoint rules of one provider: `endpoint` may hold `{region}`, `{account_id}`, `{project_ref}`; None is AWS's own."""

    endpoint: str | None
    region: str | None
    path_style: bool


PRESETS: dict[str, Preset] = {
    "s3": Preset(None, "us-east-1", path_style=False),
    "r2": Preset("https://{account_id}.r2.cloudflarestorage.com", "auto", path_style=True),
    # Backblaze tells region and endpoint of a key when asked (see `s3_credentials.discover_backblaze`).
    "backblaze": Preset("https://s3.{region}.backblazeb2.com", None, path_style=True),
    "wasabi": Preset("https://s3.{region}.wasabisys.com", "us-east-1", path_style=True),
    # Tigris serves buckets made since February 2025 under their own host name only.
    "tigris": Preset("https://fly.storage.tigris.dev", "auto", path_style=False),
    "supabase": Preset("https://{project_ref}.storage.supabase.co/storage/v1/s3", None, path_style=True),
}


class S3Credentials(BaseModel):
    """Keys, or a role to take on. The `type` may be left out: it follows from the fields that are there."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    type: Literal["access_key", "application_key", "session_token", "iam_role"] | None = None
    access_key_id: str | None = Field(default=None, min_length=1, validation_alias=AliasChoices("access_key_id", "key_id"))
    secret_access_key: SecretStr | None = Field(
        default=None, min_length=1, validation_alias=AliasChoices("secret_access_key", "application_key")
    )
    session_token: SecretStr | None = None
    role_arn: str | None = Field(default=None, pattern=r"^arn:[\w-]+:iam::\d{12}:role/\S+$")
    external_id: str | None = Field(default=None, min_length=2, max_length=1224)
    anon_key: SecretStr | None = None
    service_role_key: SecretStr | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key go together")
        if (self.anon_key is None) != (self.service_role_key is None):
            raise ValueError("anon_key and service_role_key go together")
        if self.type == "iam_role" and self.role_arn is None:
            raise ValueError("credentials of type iam_role need role_arn")
        if self.type == "session_token" and self.session_token is None and self.anon_key is None:
            raise ValueError("credentials of type session_token need session_token, or anon_key and service_role_key")
        if self.type in ("access_key", "application_key") and self.access_key_id is None:
            raise ValueError(f"credentials of type {self.type} need access_key_id and secret_access_key")
        if self.access_key_id is None and self.role_arn is None and self.anon_key is None:
            raise ValueError("credentials need access_key_id and secret_access_key, or role_arn")
        return self


class S3Events(BaseModel):
    """A queue that is told of changes. `queue_url` is an SQS queue of this sync's own: its messages are deleted once followed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    queue_url: str = Field(pattern=r"^https?://[^/\s?#@]+/[^\s?#@]+$")


class S3Config(BaseModel):
    """One connection.

    Attributes:
        provider: which preset fills the gaps.
        bucket: the bucket, when the source path does not start with it (`bucket_name` is the same).
        prefix: put before the source path; alone it is a plain key prefix, not a folder.
        region: as the provider calls it; the preset's when left out.
        endpoint_url: base URL of any S3-compatible server; overrides the preset's.
        use_ssl: https for an endpoint without a scheme.
        verify_ssl: off accepts any certificate.
        path_style: bucket in the path rather than the host name; the preset's when left out.
        order: `unordered` for a server known not to list in byte order (it would be found out, but only after a while).
        requester_pays: pay for the requests, as some public buckets ask of their readers.
        account_id: Cloudflare account of an R2 bucket. project_ref: Supabase project.
        events: a queue of the bucket's notifications, which makes changes known within seconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    provider: Literal["s3", "r2", "backblaze", "wasabi", "tigris", "supabase"] = "s3"
    bucket: str | None = Field(default=None, min_length=1, validation_alias=AliasChoices("bucket", "bucket_name"))
    prefix: str = ""
    region: str | None = Label
    endpoint_url: ServerUrl | None = None
    use_ssl: bool = True
    verify_ssl: bool = True
    path_style: bool | None = None
    order: Literal["bytes", "unordered"] = "bytes"
    requester_pays: bool = False
    account_id: str | None = Label
    project_ref: str | None = Label
    credentials: S3Credentials | None = None
    events: S3Events | None = None

    @model_validator(mode="after")
    def _has_an_endpoint(self) -> Self:
        if self.endpoint_url is not None:
            return self
        if self.provider == "r2" and self.account_id is None:
            raise ValueError("r2 needs account_id or endpoint_url (https://<account>.r2.cloudflarestorage.com)")
        if self.provider == "supabase" and (self.project_ref is None or self.region is None):
            raise ValueError("supabase needs project_ref and region, or endpoint_url")
        return self

    @property
    def preset(self) -> Preset:
        return PRESETS[self.provider]


class Endpoint(NamedTuple):
    """Where requests go and what they are signed for; `url` None is AWS's own endpoint of the region."""

    url: str | None
    region: str
    path_style: bool


def endpoint_of(config: S3Config) -> Endpoint | None:
    """The endpoint that the connection names; None when only Backblaze can tell."""
    path_style = config.preset.path_style if config.path_style is None else config.path_style
    if config.endpoint_url is not None:
        scheme = "" if "://" in config.endpoint_url else f"http{'s' * config.use_ssl}://"
        url = scheme + config.endpoint_url.rstrip("/")
        style = path_style or (config.path_style is None and config.provider == "s3" and ".amazonaws.com" not in url)
        return Endpoint(url, config.region or region_in(url) or config.preset.region or "us-east-1", style)
    region = config.region or config.preset.region
    if region is None:
        return None
    template = config.preset.endpoint
    if template is None:
        return Endpoint(None, region, path_style)
    return Endpoint(
        template.format(region=region, account_id=config.account_id, project_ref=config.project_ref), region, path_style
    )


_ENDPOINT = re.compile(r"s3[.-].*|.*\.r2\.cloudflarestorage\.com|(fly|t3)\.storage\..*")
"""Hosts that are endpoints by themselves: with a bucket's name before them they are the bucket's own."""


def check_endpoint(endpoint: Endpoint | None, bucket: str) -> None:
    """Raises Invalid: the endpoint is the bucket's own address, as consoles show it. Every key would be looked for at a wrong place."""
    parts = urlsplit(endpoint.url or "" if endpoint else "")
    path = parts.path if parts.path != f"/{bucket}" else ""
    host = parts.netloc.removeprefix(f"{bucket}.")
    if not _ENDPOINT.fullmatch(host):
        host = parts.netloc
    if (host, path) != (parts.netloc, parts.path):
        raise Invalid(f"endpoint_url must not hold the bucket {bucket!r}: write {parts.scheme}://{host}{path}.")


def region_in(url: str) -> str | None:
    """The region that an endpoint's host names."""
    found = re.search(r"//s3\.([a-z0-9-]+)\.(?:backblazeb2|wasabisys|amazonaws)\.com", url)
    return found[1] if found else None


def place_of(config: S3Config, source_path: str) -> Place:
    """The bucket and prefix of a source path; see `places.place_of`.

    Raises:
        Invalid: no bucket is named, two different ones, or one of a kind that is not supported.
    """
    place = places.place_of(source_path, bucket=config.bucket, prefix=config.prefix)
    if place.bucket.endswith("--x-s3"):
        raise Invalid(f"Bucket {place.bucket!r} is an S3 Express directory bucket, which is not supported.")
    return place
