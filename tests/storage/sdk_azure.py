"""Have Azure's own SDK fetch a user delegation key and sign with it. `sdk_azure.py JSON` runs apart from our environment."""

import json
import sys
from datetime import datetime

from azure.core.credentials import AccessToken
from azure.storage.blob import BlobServiceClient, generate_blob_sas

asked = json.loads(sys.argv[1])


class Identity:
    """Hands over the token that we were given."""

    def get_token(self, *scopes: str, **options: object) -> AccessToken:
        """As azure-identity's do."""
        return AccessToken(asked["token"], 2**31)


service = BlobServiceClient(asked["url"], credential=Identity(), connection_verify=asked["authority"])
start, end = (datetime.fromisoformat(asked[name].replace("Z", "+00:00")) for name in ("start", "end"))
key = service.get_user_delegation_key(start, end)
place = {"account_name": asked["account"], "container_name": asked["container"], "user_delegation_key": key}
print(json.dumps({"version": service.api_version, "sas": [generate_blob_sas(**place, **one) for one in asked["signed"]]}))
