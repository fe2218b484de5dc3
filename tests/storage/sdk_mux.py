"""Talk to a Mux by its own SDK, and print what it saw. `sdk_mux.py URL` runs apart from our environment."""

import json
import sys

import mux_python

configuration = mux_python.Configuration()
configuration.host = sys.argv[1]
configuration.username, configuration.password = "id", "hush"
api = mux_python.AssetsApi(mux_python.ApiClient(configuration))

pages, cursor = [], None
while True:
    page = api.list_assets(limit=100, **({"cursor": cursor} if cursor else {}))
    pages.append([asset.id for asset in page.data])
    cursor = page.next_cursor
    if not cursor:
        break

asset = api.get_asset(pages[0][0]).data
files = [[file.name, file.ext, file.height, file.filesize] for file in asset.static_renditions.files]
playback = [[one.id, one.policy] for one in asset.playback_ids]

refused = []
configuration.password = "wrong"
for ask in (
    lambda: mux_python.AssetsApi(mux_python.ApiClient(configuration)).list_assets(limit=1),
    lambda: api.get_asset("none"),
):
    try:
        ask()
    except mux_python.ApiException as error:
        refused.append([error.status, json.loads(error.body)["error"]["type"]])
    configuration.password = "hush"

print(
    json.dumps(
        {"pages": pages, "asset": [asset.status, int(asset.created_at)], "files": files, "playback": playback, "refused": refused}
    )
)
