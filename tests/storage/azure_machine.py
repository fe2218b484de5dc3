"""A machine of Azure's with an identity and no account key."""

import time

from mixpeek_dagster.storage.tokens import Grant, sign_jwt
from tests.storage.worlds import account_file

OBJECT = "11059fcc-5514-4800-b5f8-49808b9cfab6"
TENANT = "ab1f708d-50f6-404c-a006-d71b2ac7a606"


def entra_token(*, lasts_s: float = 3600.0) -> Grant:
    """A token as Entra ID makes it; nobody's key signs it, and azurite does not look."""
    now = int(time.time())
    claims = {
        "aud": "https://storage.azure.com",
        "iss": f"https://sts.windows.net/{TENANT}/",
        "iat": now,
        "nbf": now,
        "exp": now + int(lasts_s),
        "oid": OBJECT,
        "tid": TENANT,
    }
    return Grant(sign_jwt(claims, private_key=account_file()["private_key"]), lasts_s)
