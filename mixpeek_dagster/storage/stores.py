"""The store of our own files that `MIXPEEK_BLOBS` names, at one of the providers."""

from urllib.parse import parse_qsl, urlsplit

from mixpeek_dagster.errors import Invalid
from mixpeek_dagster.settings import Settings
from mixpeek_dagster.storage.blobs import BlobStore, Presigned, StoreUrl
from mixpeek_dagster.storage.http import Http, Request, read_all
from mixpeek_dagster.storage.s3_errors import error_from
from mixpeek_dagster.storage.tokens import host_of

OPTIONS = {
    "s3": ("region", "endpoint_url"),
    "gs": ("endpoint_url", "service_account"),
    "az": ("account_name", "endpoint_url"),
}
"""Scheme → what may stand behind the `?`."""


def open_store(url: str, *, settings: Settings) -> BlobStore:
    """The store at `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`. No network.

    Raises:
        Invalid: the URL is of another form, or the credentials that sign URLs are.
    """
    scheme = url.partition("://")[0]
    if scheme == "gs":
        from mixpeek_dagster.storage.managed_gcs import GCSBlobs

        return GCSBlobs.at(_parse(url), settings=settings)
    if scheme == "az":
        from mixpeek_dagster.storage.managed_azure import AzureBlobs

        return AzureBlobs.at(_parse(url), settings=settings)
    from mixpeek_dagster.storage.managed_s3 import S3Blobs

    return S3Blobs.at(_parse(url))


def put_as_client(presigned: Presigned, data: bytes) -> None:
    """Send what a client would send with the answer of `BlobStore.presign_put`.

    Raises:
        ProviderError: the store refused it, or did not answer; the message does not show the URL.
    """
    headers = {**presigned.headers, "Content-Length": str(len(data))}
    http = Http(allowed_hosts={host_of(presigned.url)})
    response = http.send(lambda: Request(presigned.method, presigned.url, headers, data))
    body = read_all(response)
    if response.status not in (200, 201):
        raise error_from(response.status, response.headers, body, what="A PUT to a presigned URL, as clients send it")


def _parse(url: str) -> StoreUrl:
    parts = urlsplit(url)
    known = OPTIONS.get(parts.scheme)
    if known is None:
        raise Invalid("MIXPEEK_BLOBS must be s3://bucket/prefix, gs://bucket/prefix or az://container/prefix.")
    options = dict(parse_qsl(parts.query))
    if not parts.netloc or set(options) - set(known):
        also = " and ".join(f"{name}=" for name in known)
        raise Invalid(f"MIXPEEK_BLOBS must be {parts.scheme}://name/prefix; behind a ? may stand {also}.")
    prefix = parts.path.strip("/")
    return StoreUrl(parts.netloc, f"{prefix}/" if prefix else "", options)
