"""Talk to a Box by its own SDK, and print what it saw. `sdk_box.py URL FOLDER_ID [PRIVATE_KEY_FILE]` runs apart from our environment."""

import json
import sys
import warnings

warnings.simplefilter("ignore")

from box_sdk_gen import (
    AccessToken,
    BaseUrls,
    BoxAPIError,
    BoxCCGAuth,
    BoxClient,
    BoxJWTAuth,
    BoxOAuth,
    CCGConfig,
    GetEventsStreamType,
    JWTConfig,
    NetworkSession,
    OAuthConfig,
)

FIELDS = ["type", "id", "name", "size", "sha1", "content_modified_at", "modified_at", "item_status", "path_collection"]
APP = {"client_id": "app", "client_secret": "hush"}

url, top, key_file = sys.argv[1:]
session = NetworkSession(base_urls=BaseUrls(base_url=url, upload_url=url, oauth_2_url=f"{url}/oauth2"))
box = BoxClient(BoxCCGAuth(CCGConfig(**APP, enterprise_id="1")), network_session=session)


def walk(folder_id: str, path: str) -> dict[str, object]:
    """path → what the listing says of the file, folder by folder in pages of two."""
    found: dict[str, object] = {}
    marker = None
    while True:
        page = box.folders.get_folder_items(folder_id, fields=FIELDS, usemarker=True, marker=marker, limit=2)
        for item in page.entries:
            if item.type == "folder":
                found |= walk(item.id, f"{path}{item.name}/")
            else:
                found[path + item.name] = [item.id, item.size, item.sha_1, item.modified_at.timestamp()]
        marker = page.next_marker
        if not marker:
            return found


files = walk(top, "")
looked_at = {path: box.files.get_file_by_id(one[0], fields=FIELDS) for path, one in files.items()}
above = {path: [folder.name for folder in item.path_collection.entries] for path, item in looked_at.items()}
bodies = {path: box.downloads.download_file(one[0]).read().decode() for path, one in files.items()}
parts = {path: box.downloads.download_file(one[0], range="bytes=1-2").read().decode() for path, one in files.items()}

start = box.events.get_events(stream_type=GetEventsStreamType.CHANGES, stream_position="now").next_stream_position
stream = box.events.get_events(stream_type=GetEventsStreamType.CHANGES, stream_position="0", limit=100)
events = [[event.event_type.value, event.source.id] for event in stream.entries]

try:
    box.files.get_file_by_id("999")
    missing = None
except BoxAPIError as error:
    missing = [error.response_info.status_code, error.response_info.code]

oauth = BoxOAuth(OAuthConfig(**APP))
oauth.token_storage.store(AccessToken(access_token="old", refresh_token="once"))
renewed = oauth.refresh_token(network_session=session)
with open(key_file) as file:
    jwt = BoxJWTAuth(
        JWTConfig(**APP, jwt_key_id="kid", private_key=file.read(), private_key_passphrase="pass", enterprise_id="1")
    )
signed = jwt.refresh_token(network_session=session)

print(
    json.dumps(
        {
            "files": files,
            "above": above,
            "bodies": bodies,
            "parts": parts,
            "events": events,
            "positions": [start, stream.next_stream_position],
            "missing": missing,
            "tokens": [renewed.refresh_token, renewed.expires_in, signed.access_token],
        }
    )
)
