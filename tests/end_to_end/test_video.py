"""Seeking in a video that lies behind one of our URLs, in a real browser."""

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from mixpeek_dagster.pipeline.syncs import advance
from tests import browser
from tests.end_to_end.api import running_api
from tests.end_to_end.film import SIZE, Colour, write_film
from tests.end_to_end.home import ROOT, Home

MB = 1024**2
SECONDS = 40
COLOURS: list[Colour] = [(255 * (n % 2), 80 * (n // 2 % 4), 50 * (n // 8)) for n in range(SECONDS)]
PLAYER = """<!doctype html><title>player</title><video muted crossorigin="anonymous" preload="metadata" width="640" controls></video><script>
const video = document.querySelector("video");
const happens = event => new Promise((resolve, reject) => {
  video.addEventListener(event, resolve, {once: true});
  video.addEventListener("error", () => reject(new Error(video.error.message)), {once: true});
});
async function load(url) {
  const loaded = happens("loadedmetadata");
  video.src = url;
  await loaded;
  return [video.videoWidth, video.videoHeight, video.duration];
}
async function seek(seconds) {
  const sought = happens("seeked");
  video.currentTime = seconds;
  await sought;
  return [video.currentTime, video.readyState];
}
function colour() {
  const canvas = Object.assign(document.createElement("canvas"), {width: video.videoWidth, height: video.videoHeight});
  const context = canvas.getContext("2d");
  context.drawImage(video, 0, 0);
  return [...context.getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data.slice(0, 3)];
}
async function playTo(seconds) {
  await video.play();
  while (video.currentTime < seconds) await happens("timeupdate");
  video.pause();
  return video.currentTime;
}
</script>"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A warehouse with a bucket of videos, and a sync that found one."""
    home = Home(tmp_path_factory.mktemp("video"))
    write_film(home.files / "film.webm", COLOURS, second_bytes=MB)
    source = {"provider": "local", "sync_config": {"source_path": str(home.files)}}
    schema = {"properties": {"clip": {"type": "video"}}}
    home.apply({"namespace": "films", "buckets": {"clips": {"schema": schema, "syncs": {"disk": source}}}})
    with home.warehouse.catalog.reading() as records:
        (sync,) = records.syncs.all()
    assert advance(home.warehouse, sync.sync_id, budget_s=20, force=True)
    return home


@pytest.fixture(scope="module")
def api(home: Home) -> Iterator[httpx.Client]:
    with running_api(home) as client:
        client.headers["X-Namespace"] = "films"
        yield client


@pytest.fixture(scope="module")
def chrome() -> Iterator[Any]:
    chromium = browser.find()
    if chromium is None:
        pytest.skip("needs a browser: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'mixpeek-dagster[dev]'")
    with playwright.sync_playwright() as p:
        launched = p.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()


class _Player(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(PLAYER.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def player() -> Iterator[str]:
    """Where a page with `PLAYER` is."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Player) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def uploaded(api: httpx.Client, film: Path) -> str:
    """Upload it as a client does; its object's id."""
    upload = api.post("/v1/buckets/clips/uploads", json={"filename": "mine.webm", "content_type": "video/webm"}).json()
    sent = httpx.put(upload["presigned_url"], content=film.read_bytes(), headers={"Content-Type": "video/webm"}, timeout=60)
    assert sent.is_success, sent.text
    return str(api.post(f"/v1/buckets/clips/uploads/{upload['upload_id']}/confirm", json={}).json()["object_id"])


def presigned(api: httpx.Client, object_id: str) -> str:
    found = api.get(f"/v1/buckets/clips/objects/{object_id}", params={"return_presigned_urls": True}).json()
    return str(found["blobs"][0]["presigned_url"])


@pytest.mark.parametrize("kind", ["uploaded", "synced"])
def test_a_video_is_sought_in_without_being_read_whole(
    home: Home, api: httpx.Client, chrome: Any, player: str, kind: str
) -> None:
    """On a page of another server: ours has no pages."""
    if kind == "uploaded":
        object_id = uploaded(api, home.files / "film.webm")
    else:
        found = api.get("/v1/buckets/clips/objects").json()["results"]
        (object_id,) = [one["object_id"] for one in found if one["blobs"][0]["details"]["filename"] == "film.webm"]
    url = presigned(api, object_id)
    page = chrome.new_page(viewport={"width": 700, "height": 420})
    answers: list[Any] = []
    page.on("response", lambda answer: answers.append(answer) if answer.url == url else None)
    page.goto(player)
    page.set_default_timeout(120_000)
    try:
        width, height, seconds = page.evaluate("url => load(url)", url)
        assert ((width, height), seconds) == (SIZE, SECONDS)
        for second in (SECONDS - 10, SECONDS // 2):
            at, ready = page.evaluate("second => seek(second)", second + 0.5)
            assert abs(at - second - 0.5) < 0.01
            assert ready >= 2, "the frame is decoded"
            shown = page.evaluate("colour()")
            assert all(abs(one - other) < 12 for one, other in zip(shown, COLOURS[second])), (shown, COLOURS[second])
        (ROOT / "screenshots").mkdir(exist_ok=True)
        page.screenshot(path=ROOT / "screenshots" / f"video-{kind}.png")
        assert page.evaluate("playTo(22)") >= 22
    finally:
        page.close()
    size = (home.files / "film.webm").stat().st_size
    assert {answer.status for answer in answers} == {206}
    parts = [re.fullmatch(rf"bytes (\d+)-{size - 1}/{size}", answer.headers["content-range"]) for answer in answers]
    starts = [int(part[1]) for part in parts if part is not None]
    assert starts[0] == 0
    assert any(start > size // 2 for start in starts), "what lies between was not read"
    assert {answer.headers["content-type"] for answer in answers} == {"video/webm"}
