"""What the operator sets, from environment variables; nothing else in the package reads the environment."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mixpeek_dagster.errors import Invalid

OWN_VARIABLES = frozenset(
    {
        "MIXPEEK_ALLOWED_HOSTS",
        "MIXPEEK_AMBIENT_CREDENTIALS",
        "MIXPEEK_API_KEY",
        "MIXPEEK_BLOBS",
        "MIXPEEK_CATALOG_URL",
        "MIXPEEK_FSSPEC_PROTOCOLS",
        "MIXPEEK_HOME",
        "MIXPEEK_INDEX",
        "MIXPEEK_LOCAL_ROOTS",
        "MIXPEEK_MAX_BODY_BYTES",
        "MIXPEEK_MAX_FAILED_RATIO",
        "MIXPEEK_MAX_FILE_BYTES",
        "MIXPEEK_MAX_OBJECTS_PER_RUN",
        "MIXPEEK_MAX_UPLOAD_BYTES",
        "MIXPEEK_MODELS",
        "MIXPEEK_PLUGIN_MODULES",
        "MIXPEEK_PUBLIC_URL",
        "MIXPEEK_RATE_LIMIT_PER_MINUTE",
        "MIXPEEK_SECRET_KEY",
        "MIXPEEK_SMTP_FROM",
        "MIXPEEK_SMTP_URL",
        "MIXPEEK_SPILL_BYTES",
        "MIXPEEK_THREADS",
        "MIXPEEK_WEAVIATE_API_KEY",
        "MIXPEEK_WEAVIATE_GRPC_PORT",
        "MIXPEEK_WEAVIATE_URL",
    }
)
"""What this module reads: a user's credentials may not name it, or the server would send its own secrets to a provider."""


MAX_FILE_BYTES = {"text": 64 * 1024**2, "json": 64 * 1024**2, "image": 256 * 1024**2, "pdf": 512 * 1024**2, "other": 2 * 1024**3}
"""By type of blob."""


def _cpus() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class AzureIdentity:
    """How Azure gives this process an identity, where not through the metadata server of a virtual machine.

    Attributes:
        endpoint, header: of App Service, Functions and Container Apps (`IDENTITY_ENDPOINT`, `IDENTITY_HEADER`).
        token_file, tenant, client, authority: a workload identity of Kubernetes (`AZURE_FEDERATED_TOKEN_FILE`, `AZURE_TENANT_ID`,
            `AZURE_CLIENT_ID`, `AZURE_AUTHORITY_HOST`).
        secret: of a service principal, instead of the token file (`AZURE_CLIENT_SECRET`).
    """

    endpoint: str | None = None
    header: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    tenant: str | None = None
    client: str | None = None
    secret: str | None = field(default=None, repr=False)
    authority: str = "https://login.microsoftonline.com"

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "AzureIdentity":
        """Read every variable; unset ones take their defaults."""
        token_file = environ.get("AZURE_FEDERATED_TOKEN_FILE")
        return cls(
            endpoint=environ.get("IDENTITY_ENDPOINT") or None,
            header=environ.get("IDENTITY_HEADER") or None,
            token_file=Path(token_file) if token_file else None,
            tenant=environ.get("AZURE_TENANT_ID") or None,
            client=environ.get("AZURE_CLIENT_ID") or None,
            secret=environ.get("AZURE_CLIENT_SECRET") or None,
            authority=environ.get("AZURE_AUTHORITY_HOST") or cls.authority,
        )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One process's settings. `Settings.from_env()` is the usual way to one; tests build their own.

    Attributes:
        home: state of the warehouse: the SQLite catalog, managed blobs, model packs (`MIXPEEK_HOME`, default `.mixpeek`).
        blobs_url: where uploads and other files of our own are kept: `s3://bucket/prefix?region=…&endpoint_url=…` with this machine's
            credentials, `gs://bucket/prefix?endpoint_url=…&service_account=…`, or `az://container/prefix?account_name=…&endpoint_url=…`
            (`MIXPEEK_BLOBS`, default a folder under `home`).
        google_credentials: the key file of a service account, for `gs://` and this machine's own credentials
            (`GOOGLE_APPLICATION_CREDENTIALS`, default the account that Google gives to this machine).
        azure_account, azure_key: a storage account and its key, for `az://` (`AZURE_STORAGE_ACCOUNT`, `AZURE_STORAGE_KEY`, the latter by
            default `azure_identity`).
        azure_identity: this machine's own identity at Azure, for `az://`, and for syncs that may use it.
        catalog_url: SQLAlchemy URL of the catalog (`MIXPEEK_CATALOG_URL`, default a SQLite file under `home`).
        index: name of the vector index, `embedded` or `weaviate` (`MIXPEEK_INDEX`).
        weaviate_url: base URL of the Weaviate server (`MIXPEEK_WEAVIATE_URL`), e.g. `http://127.0.0.1:8080`.
        weaviate_grpc_port: gRPC port of the same server (`MIXPEEK_WEAVIATE_GRPC_PORT`).
        weaviate_api_key: key for it (`MIXPEEK_WEAVIATE_API_KEY`).
        models: folder where model packs are built or taken (`MIXPEEK_MODELS`, default `~/.cache/mixpeek_dagster/models`).
        threads: inference threads of one process (`MIXPEEK_THREADS`, default the cores of this machine).
        max_objects_per_run: a batch above it is split into parts (`MIXPEEK_MAX_OBJECTS_PER_RUN`).
        max_failed_ratio: a batch whose failed share is above it ends FAILED (`MIXPEEK_MAX_FAILED_RATIO`).
        allowed_hosts: hosts that URLs of tenants may name although they are not public (`MIXPEEK_ALLOWED_HOSTS`, commas).
        local_roots: folders that a `local` sync may read (`MIXPEEK_LOCAL_ROOTS`, separated as in PATH; default any for
            syncs of the operator's own, none for what requests name and for model packs).
        ambient_credentials: a sync without credentials of its own may use this machine's (`MIXPEEK_AMBIENT_CREDENTIALS`, 1 or 0).
        fsspec_protocols: protocols that a sync or a model pack may use through fsspec, which checks no addresses and may use
            this machine's credentials (`MIXPEEK_FSSPEC_PROTOCOLS`, commas; default none).
        plugin_modules: modules of which requests may name extractors and providers by dotted path, which imports them
            (`MIXPEEK_PLUGIN_MODULES`, commas; default none).
        api_port: port of the REST API (`API_PORT`).
        api_key: a key that is valid from the first start, beside those in the catalog (`MIXPEEK_API_KEY`).
        public_url: how clients reach the REST API, for the upload and download URLs it hands out (`MIXPEEK_PUBLIC_URL`,
            default as the request came).
        rate_limit_per_minute: requests that one API key may send; 0 is no limit (`MIXPEEK_RATE_LIMIT_PER_MINUTE`).
        max_body_bytes: largest body of a request (`MIXPEEK_MAX_BODY_BYTES`).
        max_file_bytes: largest file that is read for an extraction, by type of blob (`MIXPEEK_MAX_FILE_BYTES`, such as
            `image=100000000,video=2000000000`); a larger one fails alone. Types that are not named keep `MAX_FILE_BYTES`.
        spill_bytes: a larger file waits for its extractor in the temporary folder (`TMPDIR`) instead of in memory
            (`MIXPEEK_SPILL_BYTES`).
        max_upload_bytes: largest uploaded file (`MIXPEEK_MAX_UPLOAD_BYTES`).
        smtp_url: where e-mail of webhooks goes out, `smtp://user:password@host:587` or `smtps://…` (`MIXPEEK_SMTP_URL`; default
            none, and webhooks may not ask for e-mail).
        smtp_from: the sender of such e-mail (`MIXPEEK_SMTP_FROM`).
        secret_key: Fernet keys that encrypt stored credentials (`MIXPEEK_SECRET_KEY`, commas; default a 0600 file in `home`).
    """

    home: Path
    catalog_url: str
    blobs_url: str | None = None
    google_credentials: Path | None = None
    azure_account: str | None = None
    azure_key: str | None = field(default=None, repr=False)
    azure_identity: AzureIdentity = AzureIdentity()
    index: str = "embedded"
    weaviate_url: str = "http://127.0.0.1:8080"
    weaviate_grpc_port: int = 50051
    weaviate_api_key: str | None = field(default=None, repr=False)
    models: Path = Path("~/.cache/mixpeek_dagster/models")
    threads: int = 1
    max_objects_per_run: int = 10_000
    max_failed_ratio: float = 0.1
    allowed_hosts: frozenset[str] = frozenset()
    local_roots: tuple[Path, ...] = ()
    ambient_credentials: bool = False
    fsspec_protocols: frozenset[str] = frozenset()
    plugin_modules: frozenset[str] = frozenset()
    api_port: int = 8000
    api_key: str | None = field(default=None, repr=False)
    public_url: str | None = None
    rate_limit_per_minute: int = 60_000
    max_body_bytes: int = 32 * 1024**2
    max_file_bytes: Mapping[str, int] = field(default_factory=dict)
    spill_bytes: int = 32 * 1024**2
    max_upload_bytes: int = 5 * 1024**3
    smtp_url: str | None = field(default=None, repr=False)
    smtp_from: str = "mixpeek-dagster@localhost"
    secret_key: str | None = field(default=None, repr=False)

    @property
    def catalog_place(self) -> str:
        """The catalog's URL without its password, for people."""
        scheme, slashes, rest = self.catalog_url.partition("://")
        credentials, at, place = rest.rpartition("@")
        return f"{scheme}{slashes}{credentials.partition(':')[0]}{at}{place}"

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read every setting; unset ones take their defaults."""
        home = Path(environ.get("MIXPEEK_HOME") or ".mixpeek").expanduser().absolute()
        hosts = environ.get("MIXPEEK_ALLOWED_HOSTS", "").split(",")
        roots = environ.get("MIXPEEK_LOCAL_ROOTS", "").split(os.pathsep)
        protocols = environ.get("MIXPEEK_FSSPEC_PROTOCOLS", "").split(",")
        modules = environ.get("MIXPEEK_PLUGIN_MODULES", "").split(",")
        key_file = environ.get("GOOGLE_APPLICATION_CREDENTIALS")
        return cls(
            home=home,
            catalog_url=environ.get("MIXPEEK_CATALOG_URL") or f"sqlite:///{home / 'catalog.db'}",
            blobs_url=environ.get("MIXPEEK_BLOBS") or None,
            google_credentials=Path(key_file).expanduser() if key_file else None,
            azure_account=environ.get("AZURE_STORAGE_ACCOUNT") or None,
            azure_key=environ.get("AZURE_STORAGE_KEY") or None,
            azure_identity=AzureIdentity.from_env(environ),
            index=environ.get("MIXPEEK_INDEX") or "embedded",
            weaviate_url=environ.get("MIXPEEK_WEAVIATE_URL") or "http://127.0.0.1:8080",
            weaviate_grpc_port=int(environ.get("MIXPEEK_WEAVIATE_GRPC_PORT") or 50051),
            weaviate_api_key=environ.get("MIXPEEK_WEAVIATE_API_KEY") or None,
            models=Path(environ.get("MIXPEEK_MODELS") or "~/.cache/mixpeek_dagster/models").expanduser(),
            threads=int(environ.get("MIXPEEK_THREADS") or _cpus()),
            max_objects_per_run=int(environ.get("MIXPEEK_MAX_OBJECTS_PER_RUN") or 10_000),
            max_failed_ratio=float(environ.get("MIXPEEK_MAX_FAILED_RATIO") or 0.1),
            allowed_hosts=frozenset(_host(host.strip()) for host in hosts if host.strip()),
            local_roots=tuple(Path(root).expanduser().resolve() for root in roots if root),
            ambient_credentials=environ.get("MIXPEEK_AMBIENT_CREDENTIALS", "").lower() in ("1", "true", "yes"),
            fsspec_protocols=frozenset(name.strip() for name in protocols if name.strip()),
            plugin_modules=frozenset(name.strip() for name in modules if name.strip()),
            api_port=int(environ.get("API_PORT") or 8000),
            api_key=environ.get("MIXPEEK_API_KEY") or None,
            public_url=(environ.get("MIXPEEK_PUBLIC_URL") or "").rstrip("/") or None,
            rate_limit_per_minute=int(environ.get("MIXPEEK_RATE_LIMIT_PER_MINUTE", "").strip() or 60_000),
            max_body_bytes=int(environ.get("MIXPEEK_MAX_BODY_BYTES") or 32 * 1024**2),
            max_file_bytes=_sizes(environ.get("MIXPEEK_MAX_FILE_BYTES", "")),
            spill_bytes=int(environ.get("MIXPEEK_SPILL_BYTES") or 32 * 1024**2),
            max_upload_bytes=int(environ.get("MIXPEEK_MAX_UPLOAD_BYTES") or 5 * 1024**3),
            smtp_url=environ.get("MIXPEEK_SMTP_URL") or None,
            smtp_from=environ.get("MIXPEEK_SMTP_FROM") or "mixpeek-dagster@localhost",
            secret_key=environ.get("MIXPEEK_SECRET_KEY") or None,
        )

    def most_bytes(self, kind: str) -> int:
        """The largest file of a type of blob that is read for an extraction."""
        return self.max_file_bytes.get(kind, MAX_FILE_BYTES.get(kind, MAX_FILE_BYTES["other"]))


def _host(text: str) -> str:
    """`host` or `host:port` as URLs are compared with it: in lower case, an IPv6 address without brackets."""
    found = re.fullmatch(r"(?:\[([\da-f:.%]+)\]|([\w.-]+))(:\d+)?|([\da-f.%]*:[\da-f:.%]*)", text.lower())
    if found is None:
        raise Invalid(f"MIXPEEK_ALLOWED_HOSTS holds {text!r}, which is not of the form host, host:port, [::1] or [::1]:port.")
    address, name, port, bare = (part or "" for part in found.groups())
    return address + name.rstrip(".") + port + bare


def _sizes(text: str) -> dict[str, int]:
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    try:
        return {name.strip(): int(size) for name, _, size in pairs}
    except ValueError:
        raise Invalid("MIXPEEK_MAX_FILE_BYTES is not of the form image=100000000,video=2000000000.") from None
