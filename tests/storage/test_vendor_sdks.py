"""The stubs of Box and Mux, which no emulator is had for, asked by the vendors' own SDKs: what they take for the service, and how they ask.

The SDKs live apart from our environment. They show that our reading of a vendor's API is the vendor's, not that the service runs.
"""

import base64
import hashlib
import hmac
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from mixpeek_dagster.errors import Forbidden
from mixpeek_dagster.storage.box import BoxSource
from mixpeek_dagster.storage.connect import open_source
from mixpeek_dagster.storage.mux_webhooks import news_of
from tests.storage.box_stub import APP, TOP, BoxStub
from tests.storage.contract import listing
from tests.storage.mux_stub import MuxStub, asset, rendition
from tests.storage.scripted import Asked, Scripted, scripted
from tests.storage.test_mux import source_of as mux_source
from tests.storage.worlds import allow
from tests.tools import npm_program, pip_folder

BOX = "box-sdk-gen[jwt]==1.17.0"
MUX = "mux-python==5.1.2"
MUX_NODE = "@mux/mux-node@15.3.0"
HERE = Path(__file__).parent


def said_by(sdk: str, program: str, *arguments: str) -> Any:
    """What a program prints that uses an SDK, as JSON."""
    environment = {**os.environ, "PYTHONPATH": str(pip_folder(sdk))}
    command = [sys.executable, str(HERE / program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def box_source(server: Scripted, **credentials: str) -> BoxSource:
    config = {"endpoint_url": server.url, "events": True, "credentials": {**APP, **credentials}}
    source = open_source("box", config, source_path=TOP, settings=allow(server.host, server.other_host))
    assert isinstance(source, BoxSource)
    return source


def claims_of(assertion: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Header and claims of a signed assertion, without what differs from one to the next."""
    header, claims = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in assertion.split(".")[:2])
    return header, {name: value for name, value in claims.items() if name not in ("jti", "exp", "iat")}


def targets(asked: Sequence[Asked]) -> set[str]:
    """The kinds of calls: method and path without ids, and the names of what is asked for, page sizes and places aside."""
    places = ("marker", "limit", "stream_position", "cursor")
    return {
        f"{one.method} {'/'.join('#' if part.isdecimal() else part for part in one.path.split('/'))}"
        f" {sorted(name for name in one.query if name not in places)}"
        for one in asked
    }


def test_boxs_sdk_and_our_source_ask_the_stub_the_same_and_see_the_same(tmp_path: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    encryption = serialization.BestAvailableEncryption(b"pass")
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    (tmp_path / "key.pem").write_bytes(pem)
    stub = BoxStub()
    bodies = {path: f"body of {path}" for path in ("a.txt", "b c.txt", "d/e.txt", "d/f/g \U0001f600.txt", "d/f/h.txt")}
    for path, body in bodies.items():
        stub.put(path.encode(), body.encode())
    file_id = stub.find(b"d/e.txt")
    stub.tell("ITEM_UPLOAD", {"type": "file", "id": file_id})
    stub.tell("ITEM_TRASH", {"type": "file", "id": "999"})

    with scripted(stub.answer) as server:
        stub.busy = 1  # the SDK waits as it is told, and asks again
        seen = said_by(BOX, "sdk_box.py", server.url, TOP, str(tmp_path / "key.pem"))
        sdk_asked, sdk_grants = list(server.asked), list(stub.grants)
        server.asked.clear()
        stub.grants.clear()

        source = box_source(server, enterprise_id="1")
        entries = {source.relative(entry.key): entry for entry in listing(source, limit=2)}
        assert {
            path: [source.location(one.key)[6:], one.size, one.etag, one.modified_at] for path, one in entries.items()
        } == seen["files"]
        ours = {}
        for path, entry in entries.items():
            with source.open(entry.key, if_match=entry) as stream:
                ours[path] = stream.read().decode()
        assert ours == seen["bodies"] == bodies
        assert seen["parts"] == {path: body[1:3] for path, body in bodies.items()}
        assert seen["above"]["d/f/h.txt"] == ["All Files", "top", "d", "f"]

        news = source.news("0")
        assert seen["events"] == [["ITEM_UPLOAD", file_id], ["ITEM_TRASH", "999"]]
        assert [[prefix.decode().rstrip("/") for prefix in news.prefixes], news.position] == [[file_id, "999"], "2"]
        assert seen["positions"] == [2, 2]
        assert source.head(b"999/gone.txt") is None
        assert seen["missing"] == [404, "not_found"]
        asked_by_us = targets(server.asked)

        oauth = box_source(server, access_token="old", refresh_token="again")
        stub.expired.add("old")
        oauth.check()
        box_source(server, enterprise_id="1", jwt_key_id="kid", private_key=pem.decode(), private_key_passphrase="pass").check()

    assert asked_by_us <= targets(sdk_asked)
    assert seen["tokens"] == ["refresh-2", 3600, "token-2"]
    by_sdk, by_us = ({grant["grant_type"]: grant for grant in grants} for grants in (sdk_grants, stub.grants))
    assert by_us["client_credentials"] == by_sdk["client_credentials"]
    assert {**by_us["refresh_token"], "refresh_token": "once"} == by_sdk["refresh_token"]
    bearer = "urn:ietf:params:oauth:grant-type:jwt-bearer"
    our_header, our_claims = claims_of(by_us[bearer].pop("assertion"))
    sdk_header, sdk_claims = claims_of(by_sdk[bearer].pop("assertion"))
    assert by_us[bearer] == by_sdk[bearer]
    assert our_claims == sdk_claims
    assert our_header["kid"] == sdk_header["kid"]


def test_muxs_sdk_and_our_source_see_the_same_assets() -> None:
    stub = MuxStub()
    files = [rendition("low.mp4", height=360), rendition("high.mp4", height=1080)]
    stub.add(*(asset(f"a{number:03}", *files) for number in range(250)))
    with scripted(stub.answer) as server:
        seen = said_by(MUX, "sdk_mux.py", server.url)
        sdk_asked = list(server.asked)
        server.asked.clear()
        source = mux_source(server)
        entries = listing(source)
        assert source.head(b"a000.mp4") == entries[0]
        asked_by_us = list(server.asked)
        assert source.head(b"none.mp4") is None
    assert [len(page) for page in seen["pages"]] == [100, 100, 50]
    assert [source.location(entry.key)[6:] for entry in entries] == [name for page in seen["pages"] for name in page]
    assert seen["asset"] == ["ready", entries[0].modified_at]
    assert seen["files"] == [["low.mp4", "mp4", 360, "5"], ["high.mp4", "mp4", 1080, "5"]]
    assert seen["playback"] == [["signeda000", "signed"], ["playa000", "public"]]
    assert seen["refused"] == [[401, "unauthorized"], [404, "not_found"]]
    assert targets(asked_by_us) <= targets(sdk_asked)


def test_muxs_sdk_takes_a_webhook_that_we_take_and_refuses_one_that_we_refuse(tmp_path: Path) -> None:
    program = npm_program(MUX_NODE, "mux-node")
    node = shutil.which("node")
    assert node is not None, "npm is here, and node is not"
    script = tmp_path / "verify.cjs"
    script.write_text(
        f"const Mux = require({json.dumps(str(Path(program).parents[1] / '@mux' / 'mux-node'))});\n"
        "const [body, signature] = process.argv.slice(2);\n"
        "new Mux({tokenId: 'id', tokenSecret: 'hush'}).webhooks.unwrap(body, {'mux-signature': signature}, 'key')"
        ".then((event) => console.log(event.data.id), (error) => { console.error(error.message); process.exit(1); });\n"
    )
    body, now = json.dumps({"type": "video.asset.ready", "data": {"id": "abc"}}), int(time.time())

    def by_the_sdk(signature: str) -> str | None:
        done = subprocess.run([node, str(script), body, signature], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0 or "ignature" in done.stderr or "imestamp" in done.stderr, done.stderr
        return done.stdout.strip() if done.returncode == 0 else None

    def by_us(signature: str) -> str | None:
        try:
            (key,) = news_of(body.encode(), signature, secret="key").keys
        except Forbidden:
            return None
        return key.decode().removesuffix(".mp4")

    def signed(at: int, secret: bytes) -> str:
        return f"t={at},v1={hmac.new(secret, f'{at}.{body}'.encode(), hashlib.sha256).hexdigest()}"

    genuine = signed(now, b"key")
    assert by_us(genuine) == by_the_sdk(genuine) == "abc"
    for forged in (signed(now, b"other"), signed(now - 900, b"key"), f"t={now},v1=", f"t={now + 1},{genuine.split(',')[1]}"):
        assert by_us(forged) is by_the_sdk(forged) is None, forged
