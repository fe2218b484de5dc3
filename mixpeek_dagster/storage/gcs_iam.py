"""Signatures of service accounts whose keys Google keeps, by its IAM Credentials API (`signBlob`): for machines without a key file.

The key that signs lives for 12 hours more at least, and so do the URLs. Source: "signBlob" in the reference of IAM, "Create signatures" in
the documentation of Cloud Storage.
"""

import base64
import json
import re
from urllib.parse import quote

from urllib3.response import BaseHTTPResponse

from mixpeek_dagster.errors import AccessDenied, ProviderDown, ProviderError, WrongConnection
from mixpeek_dagster.storage.gcs import metadata_http, metadata_request, reason_of
from mixpeek_dagster.storage.http import BUSY, LONGEST_ERROR_BODY, Http, Request, no_answer_now, read_all
from mixpeek_dagster.storage.json_answers import MALFORMED, read_json
from mixpeek_dagster.storage.tokens import BearerToken, host_of, send_as

ENDPOINT = "https://iamcredentials.googleapis.com"
ROLE = "roles/iam.serviceAccountTokenCreator"
EMAIL = re.compile(r"[\w.+-]+@[\w.-]+", re.ASCII)


class KeptAccount:
    """The account of this machine, or another one that this machine's may sign for. Safe to share between threads."""

    def __init__(self, token: BearerToken, *, email: str | None = None) -> None:
        """`token` is this machine's; `email` names the account, by default the machine's own."""
        self._token = token
        self._email = email
        self._http = Http(allowed_hosts={host_of(ENDPOINT)})

    def email(self) -> str:
        """The account's e-mail address; the metadata server is asked for it once.

        Raises:
            WrongConnection: this machine is nobody's, or its identity is no service account.
            ProviderDown: the metadata server does not answer, or there is none.
        """
        if self._email is None:
            response = metadata_http().send(lambda: metadata_request("email"))
            status, told = response.status, read_all(response).decode("utf-8", "replace").strip()
            if status in BUSY:
                raise no_answer_now(f"Google's metadata server does not name this machine's account ({status})", response.headers)
            if status != 200 or not EMAIL.fullmatch(told):
                raise WrongConnection(
                    f"This machine's Google identity is no service account ({status if status != 200 else told[:80]}), and only those sign "
                    "URLs: name one that it may sign for as ?service_account= in MIXPEEK_BLOBS, or a service account's key file in "
                    "GOOGLE_APPLICATION_CREDENTIALS."
                )
            self._email = told
        return self._email

    def sign(self, data: bytes) -> bytes:
        """As the port says, with one request.

        Raises:
            AccessDenied: this machine may not sign for the account. WrongConnection: there is no such account.
            ProviderDown: IAM does not answer.
        """
        email = self.email()
        url = f"{ENDPOINT}/v1/projects/-/serviceAccounts/{quote(email, safe='@')}:signBlob"
        body = json.dumps({"payload": base64.b64encode(data).decode()}).encode()
        response = send_as(self._token, self._http, lambda: Request("POST", url, {"Content-Type": "application/json"}, body))
        if response.status != 200:
            raise _error(response, email)
        try:
            signature = base64.b64decode(read_json(response, limit=LONGEST_ERROR_BODY)["signedBlob"], validate=True)
            if not signature:
                raise ValueError
            return signature
        except MALFORMED as error:
            raise ProviderDown(f"Google's IAM answered without a signature of {email}.") from error


def _error(response: BaseHTTPResponse, email: str) -> Exception:
    status, body = response.status, read_all(response)
    said = f"Google's IAM does not sign for {email}: {status} {reason_of(body) or '(no reason)'}"
    if status in BUSY:
        return no_answer_now(said, response.headers)
    if b"SERVICE_DISABLED" in body:
        return AccessDenied(f"{said}: enable the API iamcredentials.googleapis.com in that project.")
    if b"ACCESS_TOKEN_SCOPE_INSUFFICIENT" in body:
        return AccessDenied(f"{said}: give this machine the access scope cloud-platform.")
    if status in (401, 403):
        return AccessDenied(f"{said}: grant this machine's account the role {ROLE} on {email}, also where that is itself.")
    if status == 404:
        return WrongConnection(f"{said}: check the service account that MIXPEEK_BLOBS names.")
    return ProviderError(f"{said}.")
