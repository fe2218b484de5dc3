"""Tokens of the identity that Azure gives to a pod, an app or a virtual machine of its own."""

from collections.abc import Callable, Mapping
from functools import partial
from urllib.parse import urlencode

from mixpeek_dagster.errors import Invalid
from mixpeek_dagster.settings import AzureIdentity
from mixpeek_dagster.storage.http import Http, Request
from mixpeek_dagster.storage.tokens import Grant, ask_for_token, form_request, host_of

IDENTITY_HOST = "169.254.169.254"
STORAGE = "https://storage.azure.com/"
WHO = "This machine's Azure identity"


def own_identity(
    identity: AzureIdentity,
    client_id: str | None,
    *,
    otherwise: str = "name one in client_id, or give the connection an account_key",
) -> Callable[[], Grant]:
    """Fetches tokens for storage: of a service principal whose secret is here, else by a workload identity of Kubernetes, else that of App
    Service and its like, else the metadata server of a virtual machine. `client_id` picks one of several; `otherwise` is what else to
    do where there is none."""
    if identity.secret is not None and client_id in (None, identity.client):
        return partial(_of_principal, identity, identity.secret)
    if identity.token_file is not None:
        return partial(_of_pod, identity, client_id)
    remedy = f"give it one, {otherwise}"
    query = {"resource": STORAGE, **({"client_id": client_id} if client_id else {})}
    if identity.endpoint and identity.header:
        url = f"{identity.endpoint}?{urlencode({'api-version': '2019-08-01', **query})}"
        request = Request("GET", url, {"X-IDENTITY-HEADER": identity.header})
    else:
        url = f"http://{IDENTITY_HOST}/metadata/identity/oauth2/token?{urlencode({'api-version': '2018-02-01', **query})}"
        request = Request("GET", url, {"Metadata": "true"})
    http = Http(allowed_hosts={host_of(url), IDENTITY_HOST}, host_from=f"that this machine has an identity at Azure, {otherwise}")
    return lambda: ask_for_token(http, lambda: request, who=WHO, remedy=remedy)


def _of_pod(identity: AzureIdentity, client_id: str | None) -> Grant:
    client = client_id or identity.client
    if not (identity.tenant and client and identity.token_file):
        raise Invalid(
            "A workload identity of Azure needs AZURE_TENANT_ID and AZURE_CLIENT_ID beside AZURE_FEDERATED_TOKEN_FILE: label the pod "
            "azure.workload.identity/use."
        )
    try:
        assertion = identity.token_file.read_text()  # each time, as Kubernetes renews it
    except OSError as error:
        raise Invalid(f"AZURE_FEDERATED_TOKEN_FILE: {identity.token_file} cannot be read ({error.strerror}).") from error
    proof = {
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": assertion,
    }
    remedy = "check AZURE_CLIENT_ID, AZURE_TENANT_ID, and the identity's federated credential for this pod's service account"
    return _of_entra(identity, identity.tenant, client, proof, remedy=remedy)


def _of_principal(identity: AzureIdentity, secret: str) -> Grant:
    if not (identity.tenant and identity.client):
        raise Invalid("A service principal of Azure needs AZURE_TENANT_ID and AZURE_CLIENT_ID beside AZURE_CLIENT_SECRET.")
    remedy = "check AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET, which expires"
    return _of_entra(identity, identity.tenant, identity.client, {"client_secret": secret}, remedy=remedy)


def _of_entra(identity: AzureIdentity, tenant: str, client: str, proof: Mapping[str, str], *, remedy: str) -> Grant:
    fields = {"grant_type": "client_credentials", "client_id": client, "scope": f"{STORAGE}.default", **proof}
    url = f"{identity.authority.rstrip('/')}/{tenant}/oauth2/v2.0/token"
    return ask_for_token(Http(allowed_hosts={host_of(url)}), lambda: form_request(url, fields), who=WHO, remedy=remedy)
