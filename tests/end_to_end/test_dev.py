"""What a person sees after `make dev`: batches run by themselves, the UI shows them, and killed workers are replaced."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from mixpeek_dagster.models.batches import Batch, BatchStatus
from mixpeek_dagster.pipeline.batches import cancel, create_batch, submit
from tests import browser
from tests.end_to_end.dev import Dev, graphql, running_dev
from tests.end_to_end.home import ROOT, Home
from tests.waiting import until

SCREENSHOTS = ROOT / "screenshots"
LIBRARY = ROOT / "examples" / "library"


def batches(home: Home) -> list[Batch]:
    with home.warehouse.catalog.reading() as records:
        return records.batches.page()[0]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Some example files under a bucket whose name needs escaping, and two collections with real models over it."""
    home = Home(tmp_path_factory.mktemp("dev"))
    for pattern in ("texts/devils-dictionary/[a-h]*.txt", "images/photos/*.jpg", "images/crops/*.jpg", "broken/*.jpg"):
        for file in sorted(LIBRARY.glob(pattern))[:14]:
            target = home.files / file.relative_to(LIBRARY)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    passed = [{"source_path": "path"}]
    source = {"type": "bucket", "bucket_ids": ["product-catalog"]}
    home.apply(
        {
            "namespace": "demo",
            "buckets": {
                "product-catalog": {
                    "schema": {"properties": {"content": {"type": "text"}, "image": {"type": "image"}}},
                    "syncs": {
                        "disk": {"provider": "local", "sync_config": {"source_path": str(home.files), "polling_interval": 5}}
                    },
                }
            },
            "collections": {
                "passages": {"source": source, "feature_extractor": _extractor("text_extractor", passed)},
                "pictures": {"source": source, "feature_extractor": _extractor("image_extractor", passed)},
                "sentences": {
                    "source": {"type": "collection", "collection_ids": ["passages"]},
                    "feature_extractor": _extractor("text_extractor", passed, input_mappings={"text": "text"}),
                },
            },
        }
    )
    return home


def _extractor(name: str, passed: list[dict[str, str]], **more: Any) -> dict[str, Any]:
    return {"feature_extractor_name": name, "version": "v1", "field_passthrough": passed, **more}


@pytest.fixture(scope="module")
def dev(home: Home) -> Iterator[Dev]:
    with running_dev(home) as dev:
        yield dev


@pytest.fixture(scope="module")
def first_batch(home: Home, dev: Dev) -> Batch:
    """The batch that the sync sensor made by itself, ended."""
    until(lambda: any(batch.status.is_terminal for batch in batches(home)), timeout_s=240)
    return batches(home)[-1]


@pytest.mark.xdist_group("dev")
@pytest.mark.timeout(400)
def test_a_sync_becomes_documents_without_a_click(home: Home, first_batch: Batch) -> None:
    assert first_batch.status is BatchStatus.COMPLETED, first_batch.error
    assert first_batch.failed_count == 3
    with home.warehouse.catalog.reading() as records:
        counts = {one.collection_name: one.document_count for one in records.collections.all()}
    assert counts["passages"] == counts["sentences"] >= 14
    assert counts["pictures"] == 19


@pytest.mark.xdist_group("dev")
def test_every_pass_leaves_an_observation_and_the_observe_button_makes_one(dev: Dev, first_batch: Batch) -> None:
    query = """query($key: AssetKeyInput!) { assetOrError(assetKey: $key) { ... on Asset {
        assetObservations(limit: 50) { runId metadataEntries { label ... on IntMetadataEntry { intValue } } } } } }"""
    key = {"path": ["demo", "buckets", "product-catalog"]}

    def observations() -> list[dict[str, Any]]:
        return list(graphql(dev, query, key=key)["assetOrError"]["assetObservations"])

    seen = until(lambda: observations() if len(observations()) >= 2 else None)
    numbers = {entry["label"]: entry.get("intValue") for entry in seen[0]["metadataEntries"]}
    assert numbers["objects"] == first_batch.item_count == 36
    assert numbers["bytes"] > 100_000

    launch = """mutation($selector: JobOrPipelineSelector!) { launchRun(executionParams: {selector: $selector}) {
        __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
    selector = {
        "repositoryLocationName": "mixpeek",
        "repositoryName": "__repository__",
        "pipelineName": "__ASSET_JOB",
        "assetSelection": [key],
    }
    started = graphql(dev, launch, selector=selector)["launchRun"]
    assert started["__typename"] == "LaunchRunSuccess", started
    until(lambda: any(one["runId"] == started["run"]["runId"] for one in observations()))


@pytest.mark.xdist_group("dev")
@pytest.mark.timeout(300)
def test_a_killed_run_worker_is_replaced_and_the_batch_completes(home: Home, dev: Dev, first_batch: Batch) -> None:
    before = set(dev.run_workers())
    batch = _submit(home, 36)
    worker = until(lambda: set(dev.run_workers()) - before).pop()
    until(lambda: _status(home, batch) is BatchStatus.PROCESSING)
    os.kill(worker, signal.SIGKILL)
    until(lambda: _status(home, batch).is_terminal, timeout_s=200)
    with home.warehouse.catalog.reading() as records:
        ended = records.batches.get(batch.batch_id)
        (part,) = records.batches.parts(batch.batch_id)
    assert ended.status is BatchStatus.COMPLETED, ended.error
    assert part.attempt >= 1


@pytest.mark.xdist_group("dev")
@pytest.mark.timeout(200)
def test_waiting_batches_share_a_run(home: Home, dev: Dev, first_batch: Batch) -> None:
    made = [_submit(home, 1, skip=number) for number in range(6)]
    until(lambda: all(_status(home, batch).is_terminal for batch in made), timeout_s=150)
    assert {_status(home, batch) for batch in made} <= {BatchStatus.COMPLETED, BatchStatus.FAILED}
    with home.warehouse.catalog.reading() as records:
        runs = {records.batches.parts(batch.batch_id)[0].run_id for batch in made}
    assert len(runs) < len(made)


@pytest.mark.xdist_group("dev")
def test_a_canceled_batch_stays_canceled(home: Home, dev: Dev, first_batch: Batch) -> None:
    batch = _submit(home, 36)
    warehouse = home.warehouse
    with warehouse.catalog.transaction() as records:
        cancel(records, batch.batch_id, now=warehouse.now())
    time.sleep(6)
    assert _status(home, batch) is BatchStatus.CANCELED


def _submit(home: Home, count: int, *, skip: int = 0) -> Batch:
    warehouse = home.warehouse
    with warehouse.catalog.transaction() as records:
        bucket = records.buckets.all()[0]
        objects = records.objects.ids_in_bucket(bucket.bucket_id)[skip : skip + count]
        where = {"namespace_id": bucket.namespace_id, "bucket_id": bucket.bucket_id}
        batch = create_batch(records, objects, **where, now=warehouse.now(), dedup="force", reembed=True)
        return submit(records, batch, settings=warehouse.settings, now=warehouse.now())


def _status(home: Home, batch: Batch) -> BatchStatus:
    with home.warehouse.catalog.reading() as records:
        return records.batches.get(batch.batch_id).status


@pytest.mark.xdist_group("dev")
@pytest.mark.timeout(300)
def test_the_pages_a_person_opens(home: Home, dev: Dev, first_batch: Batch) -> None:
    chromium = browser.find()
    if chromium is None:
        pytest.skip("needs a browser: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'mixpeek-dagster[dev]'")
    SCREENSHOTS.mkdir(exist_ok=True)
    with home.warehouse.catalog.reading() as records:
        run_id = records.batches.parts(first_batch.batch_id)[0].run_id
    asset = f"{dev.url}/assets/demo"
    with playwright.sync_playwright() as p:
        chrome = p.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = chrome.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(45_000)

        def shoot(name: str, url: str, *texts: str, click: str | None = None) -> None:
            page.goto(url)
            for text in texts:
                page.get_by_text(text, exact=False).first.wait_for()
            if click:
                page.get_by_text(click, exact=True).first.click()
            page.wait_for_timeout(2500)
            page.screenshot(path=SCREENSHOTS / f"{name}.png")

        shoot("lineage", f"{dev.url}/locations/mixpeek/asset-groups/demo/lineage", "product-catalog", "passages", "sentences")
        shoot("bucket", f"{asset}/buckets/product-catalog?view=overview", "objects", "listing seconds", click="Plots")
        shoot("bucket-events", f"{asset}/buckets/product-catalog?view=events", "Observed", "listed")
        shoot("partitions", f"{asset}/collections/pictures?view=partitions", first_batch.batch_id)
        part = f"partition={first_batch.batch_id}"
        shoot("collection", f"{asset}/collections/pictures?view=partitions&{part}", "thumbnails", "documents_per_second")
        shoot("run", f"{dev.url}/runs/{run_id}", "Success", "passages_")
        shoot("sensors", f"{dev.url}/automation", "batches", "sync_demo_product_catalog")
        chrome.close()
    assert {file.stem for file in SCREENSHOTS.glob("*.png")} >= {
        "lineage",
        "bucket",
        "partitions",
        "collection",
        "run",
        "sensors",
    }
