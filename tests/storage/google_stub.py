"""A machine of Google's without a key file, as far as we ask: its metadata server, and the IAM that signs with the key it keeps."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from mixpeek_dagster.storage import gcs, gcs_iam
from tests.storage.scripted import Answer, Asked, Scripted, scripted
from tests.storage.worlds import account_file

EMAIL = "warehouse@project.iam.gserviceaccount.com"
TOKEN = "ya29.own"


class GoogleStub:
    """Answers as Google documents it, strictly. Its key is that of `account_file`."""

    def __init__(self) -> None:
        self.email = EMAIL
        self.may_sign_for = {EMAIL}
        self.tokens = [TOKEN]
        self.instead: list[Answer] = []
        """What IAM says before it does what it is asked."""

    def answer(self, asked: Asked) -> Answer:
        if asked.path.startswith("/computeMetadata/v1/"):
            if asked.headers.get("Metadata-Flavor") != "Google":
                return Answer(403)
            what = asked.path.removeprefix("/computeMetadata/v1/instance/service-accounts/default/")
            token = {"access_token": self.tokens[0], "expires_in": 3599, "token_type": "Bearer"}
            told = {"token": json.dumps(token), "email": self.email}.get(what)
            return Answer(404) if told is None else Answer(body=told.encode())
        if self.instead:
            return self.instead.pop(0)
        if asked.headers.get("Authorization") != f"Bearer {self.tokens[-1]}":
            self.tokens = self.tokens[-1:]
            return refusal(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        email = asked.path.removeprefix("/v1/projects/-/serviceAccounts/").removesuffix(":signBlob")
        if asked.method != "POST" or asked.path != f"/v1/projects/-/serviceAccounts/{email}:signBlob":
            return refusal(404, "NOT_FOUND", "no such method")
        if email not in self.may_sign_for:
            return refusal(
                403,
                "IAM_PERMISSION_DENIED",
                "Permission 'iam.serviceAccounts.signBlob' denied on resource (or it may not exist).",
            )
        body = json.loads(asked.body)
        if set(body) != {"payload"} or not asked.headers["Content-Type"].startswith("application/json"):
            return refusal(400, "INVALID_ARGUMENT", "Invalid JSON payload received.")
        key = serialization.load_pem_private_key(account_file()["private_key"].encode(), None)
        assert isinstance(key, rsa.RSAPrivateKey)
        signature = key.sign(base64.b64decode(body["payload"], validate=True), padding.PKCS1v15(), hashes.SHA256())
        return Answer(body=json.dumps({"keyId": "k1", "signedBlob": base64.b64encode(signature).decode()}).encode())


def refusal(status: int, reason: str, message: str) -> Answer:
    """An error as Google's APIs word it."""
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"}]
    return Answer(status, json.dumps({"error": {"code": status, "message": message, "details": details}}).encode())


@contextmanager
def google_machine(monkeypatch: pytest.MonkeyPatch, stub: GoogleStub) -> Iterator[Scripted]:
    """While the block runs, this process is on a machine of Google's."""
    with scripted(stub.answer) as server:
        monkeypatch.setattr(gcs, "METADATA_HOST", server.host)
        monkeypatch.setattr(gcs_iam, "ENDPOINT", server.url)
        yield server
