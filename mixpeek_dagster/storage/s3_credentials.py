"""Credentials for S3: keys as given, a role taken on through STS, or the machine's own where the operator allows it."""

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple, Protocol, cast

from mixpeek_dagster.errors import AccessDenied, Invalid, ProviderDown, WrongConnection
from mixpeek_dagster.settings import Settings
from mixpeek_dagster.storage.http import Http, Request, read_all
from mixpeek_dagster.storage.s3_config import Endpoint, S3Config
from mixpeek_dagster.storage.s3_errors import error_from
from mixpeek_dagster.storage.s3_requests import Keys, SigningKeys

BACKBLAZE_AUTHORIZE = "https://api.backblazeb2.com/b2api/v3/b2_authorize_account"
ROLE_SESSION_S = 3600
OWN = "This machine's own AWS credentials"


class CredentialSource(Protocol):
    """Keys to sign one request with, renewed when they are about to expire."""

    def get_frozen_credentials(self) -> SigningKeys: ...


class _Given(NamedTuple):
    """Keys that stay as they are."""

    keys: Keys

    def get_frozen_credentials(self) -> Keys:
        return self.keys


@cache
def aws_session() -> Any:
    """One session per process: it reads botocore's data files once, 0.2 CPU-s."""
    import botocore.session

    return botocore.session.Session()


def credentials_of(config: S3Config, settings: Settings) -> CredentialSource:
    """The connection's credentials; roles are taken on at first use.

    Raises:
        Invalid: the connection has none, or has a role but no key to take it on with, and the machine's own are not allowed.
    """
    given = config.credentials
    if given is None:
        _require_ambient(settings, "The connection has no credentials")
        return _Ambient()
    if given.anon_key is not None and given.service_role_key is not None:
        if config.project_ref is None:
            raise Invalid("Supabase credentials of type session_token need project_ref.")
        anon_key, service_key = given.anon_key.get_secret_value(), given.service_role_key.get_secret_value()
        return _Given(Keys(config.project_ref, anon_key, service_key))
    keys = None
    if given.access_key_id is not None and given.secret_access_key is not None:
        token = given.session_token.get_secret_value() if given.session_token else None
        keys = Keys(given.access_key_id, given.secret_access_key.get_secret_value(), token)
    if given.role_arn is None:
        if keys is None:
            raise Invalid("The connection's credentials hold neither keys nor a role.")
        return _Given(keys)
    if keys is None:
        _require_ambient(settings, "The connection names a role but no key to take it on with")
    from botocore.credentials import DeferredRefreshableCredentials

    renewed = DeferredRefreshableCredentials(_role_refresher(given.role_arn, given.external_id, config, keys), "assume-role")
    return cast(CredentialSource, renewed)


def _require_ambient(settings: Settings, found: str) -> None:
    if not settings.ambient_credentials:
        raise Invalid(
            f"{found}. Give access_key_id and secret_access_key; or let syncs use this machine's own credentials "
            "(operator: MIXPEEK_AMBIENT_CREDENTIALS=1)."
        )


class _Ambient:
    """The machine's own credentials, looked for at first use: an instance role is asked for over the network."""

    def get_frozen_credentials(self) -> Keys:
        with botocore_errors():
            found = aws_session().get_credentials()
            if found is None:
                raise AccessDenied("This machine has no AWS credentials of its own (environment, profile, or instance role).")
            frozen = found.get_frozen_credentials()
        return Keys(frozen.access_key, frozen.secret_key, frozen.token)


@contextmanager
def botocore_errors(what: str = OWN) -> Iterator[None]:
    """What botocore raises, as our errors; `what` are the credentials it uses."""
    from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError

    try:
        yield
    except ClientError as error:
        code, answer = error.response.get("Error", {}).get("Code", ""), error.response["ResponseMetadata"]
        if code == "AccessDenied":
            raise AccessDenied(
                f"{what}: it could not be taken on ({code}): its trust policy must name this server and the external id."
            ) from error
        body = f"<Code>{code}</Code>".encode()
        raise error_from(answer["HTTPStatusCode"], answer.get("HTTPHeaders", {}), body, what=what) from error
    except (ConnectionError, HTTPClientError) as error:
        raise ProviderDown(f"{what}: AWS did not answer ({type(error).__name__}).") from error
    except BotoCoreError as error:
        raise AccessDenied(f"{what} cannot be used: {str(error).rstrip('.')}.") from error


def _role_refresher(role_arn: str, external_id: str | None, config: S3Config, keys: Keys | None) -> Callable[[], dict[str, Any]]:
    def refresh() -> dict[str, Any]:
        frozen = keys or _Ambient().get_frozen_credentials()
        asked = {"RoleArn": role_arn, "RoleSessionName": "mixpeek-dagster", "DurationSeconds": ROLE_SESSION_S}
        if external_id is not None:
            asked["ExternalId"] = external_id
        with botocore_errors(f"Role {role_arn}"):
            sts: Any = aws_session().create_client(
                "sts",
                region_name=config.region or "us-east-1",
                aws_access_key_id=frozen.access_key,
                aws_secret_access_key=frozen.secret_key,
                aws_session_token=frozen.token,
            )
            answer = sts.assume_role(**asked)["Credentials"]
        return {
            "access_key": answer["AccessKeyId"],
            "secret_key": answer["SecretAccessKey"],
            "token": answer["SessionToken"],
            "expiry_time": answer["Expiration"].isoformat(),
        }

    return refresh


def discover_backblaze(http: Http, credentials: CredentialSource) -> Endpoint:
    """Ask Backblaze where the S3 endpoint of a key is."""
    frozen = credentials.get_frozen_credentials()
    basic = base64.b64encode(f"{frozen.access_key}:{frozen.secret_key}".encode()).decode()
    response = http.send(lambda: Request("GET", BACKBLAZE_AUTHORIZE, {"Authorization": f"Basic {basic}"}))
    body = read_all(response)
    if response.status in (401, 403):
        raise AccessDenied("Backblaze refused the application key: check key_id and application_key.")
    if response.status != 200:
        raise ProviderDown(f"Backblaze answered {response.status} when asked for the endpoint of the key.")
    try:
        url = str(json.loads(body)["apiInfo"]["storageApi"]["s3ApiUrl"])
        region = url.split("//s3.")[1].split(".")[0]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise WrongConnection("Backblaze named no S3 endpoint for the key: give endpoint_url and region.") from error
    return Endpoint(url.rstrip("/"), region, path_style=True)
