"""What S3's error answers mean: our error class, the cause, and what to do about it. Answers are quoted by code, never whole."""

import re
from collections.abc import Mapping

from mixpeek_dagster.errors import AccessDenied, Archived, Changed, MixpeekError, ProviderDown, ProviderError, WrongConnection
from mixpeek_dagster.storage.http import no_answer_now

Meaning = tuple[type[MixpeekError], str]

MEANINGS: dict[str, Meaning] = {
    "AccessDenied": (
        AccessDenied,
        "these credentials may not do that: grant s3:ListBucket and s3:GetObject, or set requester_pays where the bucket asks for it",
    ),
    "AllAccessDisabled": (AccessDenied, "all access to the bucket is disabled"),
    "AccountProblem": (AccessDenied, "the account has a problem: see the provider's console"),
    "InvalidAccessKeyId": (
        AccessDenied,
        "the access key does not exist: check access_key_id, and that it belongs to this endpoint",
    ),
    "InvalidSecurity": (AccessDenied, "the credentials are not valid"),
    "InvalidToken": (AccessDenied, "the session token is malformed or does not belong to the key"),
    "InvalidClientTokenId": (AccessDenied, "the access key does not exist: check access_key_id"),
    "InvalidTokenId": (AccessDenied, "the access key does not exist: check access_key_id"),
    "ExpiredToken": (AccessDenied, "the session token has expired: give a new one, or a role"),
    "TokenRefreshRequired": (AccessDenied, "the session token has expired: give a new one, or a role"),
    "SignatureDoesNotMatch": (
        AccessDenied,
        "the signature does not match: check secret_access_key, and region for other endpoints",
    ),
    "RequestTimeTooSkewed": (AccessDenied, "this machine's clock is off by more than 15 minutes: set it"),
    "RequestExpired": (AccessDenied, "this machine's clock is off: set it"),
    "NotSignedUp": (AccessDenied, "the account is not signed up for storage"),
    "KMS.DisabledException": (AccessDenied, "the file's encryption key is disabled"),
    "NoSuchBucket": (WrongConnection, "the bucket does not exist: check its name, region and endpoint_url"),
    "InvalidBucketName": (WrongConnection, "the bucket's name is not valid"),
    "PermanentRedirect": (WrongConnection, "the bucket is in another region"),
    "TemporaryRedirect": (WrongConnection, "the bucket is in another region, or was made minutes ago"),
    "AuthorizationHeaderMalformed": (WrongConnection, "the bucket is in another region"),
    "AuthorizationQueryParametersError": (WrongConnection, "the bucket is in another region"),
    "IllegalLocationConstraintException": (WrongConnection, "the bucket is in another region"),
    "RegionDisabledException": (
        WrongConnection,
        "STS is not active in the region for this account: activate it, or take another",
    ),
    "MethodNotAllowed": (WrongConnection, "the server does not do that: is endpoint_url an S3 endpoint?"),
    "NotImplemented": (WrongConnection, "the server does not do that: is endpoint_url an S3 endpoint?"),
    "InvalidObjectState": (Archived, "it is archived: restore it, or move it to a class that can be read"),
    "PreconditionFailed": (Changed, "it is not the revision that was listed"),
    "SlowDown": (ProviderDown, "it asks for fewer requests"),
    "Throttling": (ProviderDown, "it asks for fewer requests"),
    "ServiceUnavailable": (ProviderDown, "it is overloaded"),
    "InternalError": (ProviderDown, "it failed inside"),
    "RequestTimeout": (ProviderDown, "it waited too long"),
    "OperationAborted": (ProviderDown, "another operation is going on"),
}

SSE_C: Meaning = (
    AccessDenied,
    "it is encrypted with a key that its owner did not give to the provider (SSE-C), and cannot be read without: store it otherwise",
)

BY_STATUS: dict[int, Meaning] = {
    301: MEANINGS["PermanentRedirect"],
    307: MEANINGS["TemporaryRedirect"],
    400: (ProviderError, "it calls the request bad"),
    401: MEANINGS["InvalidSecurity"],
    403: MEANINGS["AccessDenied"],
    412: MEANINGS["PreconditionFailed"],
    429: MEANINGS["SlowDown"],
}


def error_code(body: bytes) -> str:
    """The `<Code>` of an error answer; empty when there is none."""
    found = re.search(rb"<Code>\s*([A-Za-z0-9._-]{1,80})\s*</Code>", body)
    return found[1].decode() if found else ""


def error_from(status: int, headers: Mapping[str, str], body: bytes, *, what: str) -> Exception:
    """The error of an answer that is not a success; `what` names the bucket or the file.

    A 404 becomes `FileNotFoundError` only when S3 itself says that the key does not exist: a proxy's must not delete anything.
    """
    code = error_code(body)
    if code in ("NoSuchKey", "NoSuchVersion"):
        return FileNotFoundError(f"{what} does not exist.")
    is_sse_c = code == "InvalidRequest" and b"Server Side Encryption" in body
    kind, cause = SSE_C if is_sse_c else MEANINGS.get(code) or BY_STATUS.get(status) or _by_class(status)
    region = headers.get("x-amz-bucket-region") or _region(body)
    if kind is WrongConnection and region and "region" in cause:
        cause += f": set region to {region!r}"
    details = {"code": code, "status": status}
    said = f"{what}: the provider answered {status} {code or '(no code)'}: {cause}"
    return no_answer_now(said, headers, details=details) if kind is ProviderDown else kind(f"{said}.", details=details)


def _by_class(status: int) -> Meaning:
    if status >= 500:
        return ProviderDown, "it failed inside"
    if status == 404:
        return ProviderDown, "not an answer of S3: is endpoint_url right?"
    return ProviderError, "an answer that was not expected"


def _region(body: bytes) -> str:
    found = re.search(rb"<(?:Region|BucketRegion)>\s*([a-z0-9-]{1,40})\s*<", body)
    return found[1].decode() if found else ""
