"""Empty sources on real servers, for the contract and for vendors' own tests."""

import functools
import itertools
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from mixpeek_dagster.settings import Settings
from mixpeek_dagster.storage.connect import open_source
from tests.servers import S3Server, s3_client
from tests.storage.contract import World

_COUNT = itertools.count()


def allow(*hosts: str, **values: Any) -> Settings:
    """Settings that let sources reach these hosts."""
    return Settings(home=Path("unused"), catalog_url="sqlite://", allowed_hosts=frozenset(hosts), **values)


def new_name(kind: str) -> str:
    """A bucket name that this test session has not used."""
    return f"{kind}-{next(_COUNT)}"


@functools.cache
def account_file() -> dict[str, str]:
    """The key file of a service account that nobody has."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return {"type": "service_account", "client_email": "a@b", "private_key": pem.decode(), "private_key_id": "k1"}


def s3_settings(server: S3Server, **values: Any) -> dict[str, Any]:
    """A connection to the server, in the form of the quickstart."""
    return {
        "endpoint_url": server.url,
        "region": server.region,
        "credentials": {"access_key_id": server.access_key_id, "secret_access_key": server.secret_access_key},
        **values,
    }


def s3_world(server: S3Server, *, prefix: str = "", provider: str = "s3", **values: Any) -> World:
    """An empty bucket; with a prefix, also files beside it that must not be seen. `values` are more of the connection."""
    client: Any = s3_client(server)
    bucket = new_name("world")
    client.create_bucket(Bucket=bucket)
    if prefix:
        for beside in ("aaa", prefix.rstrip("/") + "-old/x", "zzz"):
            client.put_object(Bucket=bucket, Key=beside, Body=b"beside")
    config = s3_settings(server, bucket_name=bucket, **values)
    source = open_source(provider, config, source_path="/" + prefix, settings=allow(server.host))
    return World(
        source=source,
        put=lambda key, body: client.put_object(Bucket=bucket, Key=prefix + key.decode(), Body=body),
        delete=lambda key: client.delete_object(Bucket=bucket, Key=prefix + key.decode()),
        prefix=prefix.encode(),
    )
