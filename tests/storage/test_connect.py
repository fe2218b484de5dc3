"""From a provider's name and settings to a source."""

import json
import socket
from typing import Any

import pytest

from mixpeek_dagster import plugins
from mixpeek_dagster.errors import AccessDenied, Invalid, ProviderDown, UnknownName, WrongConnection
from mixpeek_dagster.storage import s3_credentials
from mixpeek_dagster.storage.connect import canonical, open_source, read_config
from mixpeek_dagster.storage.http import Backoff
from mixpeek_dagster.storage.s3 import S3Source
from mixpeek_dagster.storage.s3_config import Endpoint, S3Config, endpoint_of
from tests.storage.scripted import Answer, scripted
from tests.storage.worlds import account_file, allow

KEYS = {"access_key_id": "AKIA", "secret_access_key": "hush"}


@pytest.mark.parametrize("name", sorted(plugins.BUILT_IN["providers"]))
def test_every_built_in_provider_loads_and_validates(name: str) -> None:
    provider = plugins.load("providers", name)
    assert provider.Config.model_config["extra"] == "forbid"
    with pytest.raises(Invalid):
        read_config(name, {"no_such_setting": 1})


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("S3", "s3"),
        ("azure", "azure_blob"),
        ("Azure-Blob", "azure_blob"),
        ("b2", "backblaze"),
        ("backblaze_b2", "backblaze"),
        ("cloudflare_r2", "r2"),
        ("gs", "gcs"),
        ("my.package:Source", "my.package:Source"),
    ],
)
def test_providers_have_several_names(written: str, name: str) -> None:
    assert canonical(written) == name


ANSWERING: dict[str, tuple[str, dict[str, Any]]] = {
    "s3": ("b", {"credentials": KEYS}),
    "gcs": ("b", {}),
    "azure": ("c", {"account_name": "acc", "credentials": {"account_key": "YQ=="}}),
    "box": ("", {"credentials": {"client_id": "a", "client_secret": "s", "access_token": "t"}}),
    "mux": ("", {"credentials": {"access_token_id": "i", "access_token_secret": "s"}}),
}


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("provider", ANSWERING)
def test_the_wait_that_a_provider_asks_for_is_in_its_error(provider: str, status: int) -> None:
    path, config = ANSWERING[provider]
    with scripted(lambda _asked: Answer(status, b"", {"Retry-After": "120"})) as server:
        source = open_source(provider, {**config, "endpoint_url": server.url}, source_path=path, settings=allow(server.host))
        with pytest.raises(ProviderDown, match="asked again in 120 s") as raised:
            source.list_page()
    assert raised.value.retry_after_s == 120
    assert len(server.asked) == 1, "a longer wait than a pass may wait is left to the next pass"


@pytest.mark.parametrize("provider", ANSWERING)
def test_failed_tls_names_the_settings_that_the_provider_has(provider: str) -> None:
    path, config = ANSWERING[provider]
    with scripted(lambda _asked: Answer()) as server:
        url = server.url.replace("http:", "https:")
        source = open_source(provider, {**config, "endpoint_url": url}, source_path=path, settings=allow(server.host))
        with pytest.raises(WrongConnection, match=r"TLS with 127\.0\.0\.1 failed: .* Check endpoint_url") as raised:
            source.list_page()
    assert ("verify_ssl" in str(raised.value)) is (provider == "s3")


@pytest.mark.parametrize(
    ("provider", "words"),
    [("s3", "Check endpoint_url and region"), ("azure", "Check account_name"), ("gcs", "DNS.$"), ("box", "endpoint_url")],
)
def test_a_host_that_nobody_knows_names_the_settings_that_lead_to_it(
    provider: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_arguments: object, **_options: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    path, config = ANSWERING[provider]
    more = {"credentials": {"service_account_json": account_file()}} if provider == "gcs" else {}
    source: Any = open_source(provider, {**config, **more}, source_path=path, settings=allow())
    source._http.backoff = Backoff(tries=1)
    with pytest.raises(ProviderDown, match=words):
        source.list_page()


def test_an_unknown_provider_lists_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="azure_blob"):
        open_source("dropbox", {}, source_path="", settings=allow())


def test_faults_are_named_and_values_are_not() -> None:
    config = {"region": "not a region!", "bucket": 7, "credentials": {"access_key_id": "A", "secret_access_key": ["PRIVATE"]}}
    with pytest.raises(Invalid) as raised:
        open_source("s3", config, source_path="b", settings=allow())
    faults = {".".join(fault["loc"]) for fault in raised.value.details["errors"]}
    assert {"region", "bucket"} <= faults
    assert "PRIVATE" not in str(raised.value) + json.dumps(raised.value.details)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize(
    "credentials",
    [
        {},
        {"access_key_id": "A"},
        {"secret_access_key": "S"},
        {"type": "iam_role", **KEYS},
        {"role_arn": "not-an-arn"},
        {"type": "access_key", "role_arn": "arn:aws:iam::123456789012:role/x"},
        {"anon_key": "a"},
        {**KEYS, "extra": 1},
        {"type": "session_token", **KEYS},
    ],
    ids=str,
)
def test_incomplete_credentials_are_invalid(credentials: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        open_source("s3", {"credentials": credentials}, source_path="b", settings=allow())


def test_secrets_are_not_in_the_config_as_text() -> None:
    config = read_config("s3", {"bucket": "b", "credentials": {"access_key_id": "A", "secret_access_key": "PRIVATE"}})
    assert "PRIVATE" not in repr(config) + config.model_dump_json()


@pytest.mark.parametrize(
    ("provider", "config", "url", "region", "path_style"),
    [
        ("s3", {}, None, "us-east-1", False),
        ("s3", {"region": "eu-west-1"}, None, "eu-west-1", False),
        ("s3", {"endpoint_url": "minio.example:9000", "use_ssl": False}, "http://minio.example:9000", "us-east-1", True),
        ("s3", {"endpoint_url": "https://s3.eu-1.wasabisys.com/"}, "https://s3.eu-1.wasabisys.com", "eu-1", True),
        ("r2", {"account_id": "acc1"}, "https://acc1.r2.cloudflarestorage.com", "auto", True),
        ("wasabi", {"region": "eu-central-2"}, "https://s3.eu-central-2.wasabisys.com", "eu-central-2", True),
        ("backblaze", {"region": "us-west-004"}, "https://s3.us-west-004.backblazeb2.com", "us-west-004", True),
        (
            "backblaze",
            {"endpoint_url": "s3.us-west-004.backblazeb2.com"},
            "https://s3.us-west-004.backblazeb2.com",
            "us-west-004",
            True,
        ),
        ("tigris", {}, "https://fly.storage.tigris.dev", "auto", False),
        ("tigris", {"endpoint_url": "https://t3.storage.dev"}, "https://t3.storage.dev", "auto", False),
        ("supabase", {"project_ref": "ref", "region": "eu-1"}, "https://ref.storage.supabase.co/storage/v1/s3", "eu-1", True),
    ],
)
def test_presets_know_their_endpoints(
    provider: str, config: dict[str, Any], url: str | None, region: str, path_style: bool
) -> None:
    found = read_config(provider, {**config, "credentials": KEYS})
    assert isinstance(found, S3Config)
    assert endpoint_of(found) == Endpoint(url, region, path_style)


def test_backblaze_is_asked_when_the_connection_names_no_region() -> None:
    found = read_config("backblaze", {"credentials": KEYS})
    assert isinstance(found, S3Config)
    assert endpoint_of(found) is None


@pytest.mark.parametrize(
    ("provider", "config", "url"),
    [
        ("s3", {"region": "eu-west-1"}, "https://bkt.s3.eu-west-1.amazonaws.com/k%20y"),
        ("s3", {}, "https://bkt.s3.us-east-1.amazonaws.com/k%20y"),
        ("tigris", {}, "https://bkt.fly.storage.tigris.dev/k%20y"),
        ("supabase", {"project_ref": "ref1", "region": "eu-west-1"}, "https://ref1.storage.supabase.co/storage/v1/s3/bkt/k%20y"),
        ("r2", {"account_id": "acc1"}, "https://acc1.r2.cloudflarestorage.com/bkt/k%20y"),
    ],
)
def test_requests_go_to_the_providers_address_signed(provider: str, config: dict[str, Any], url: str) -> None:
    source = open_source(provider, {**config, "credentials": KEYS}, source_path="bkt/", settings=allow())
    assert isinstance(source, S3Source)
    request = source._signer("GET", b"k y", {}, {})()
    assert request.url == url
    assert request.headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIA/")


@pytest.mark.parametrize("config", [{}, {"project_ref": "a/b", "region": "x"}, {"project_ref": "ref"}])
def test_a_preset_needs_what_its_endpoint_is_made_of(config: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        open_source("supabase", {**config, "credentials": KEYS}, source_path="b", settings=allow())


def test_supabase_signs_with_the_project_and_its_keys() -> None:
    credentials = {"type": "session_token", "anon_key": "anon", "service_role_key": "service"}
    config = {"project_ref": "ref1", "region": "eu-west-1", "credentials": credentials}
    source = open_source("supabase", config, source_path="b", settings=allow())
    assert isinstance(source, S3Source)
    frozen = source._credentials.get_frozen_credentials()
    assert (frozen.access_key, frozen.secret_key, frozen.token) == ("ref1", "anon", "service")


def backblaze(host: str) -> S3Source:
    credentials = {"type": "application_key", "key_id": "kid", "application_key": "hush"}
    source = open_source("backblaze", {"credentials": credentials}, source_path="b2://bkt/x", settings=allow(host))
    assert isinstance(source, S3Source)
    return source


def test_backblaze_tells_its_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"apiInfo": {"storageApi": {"s3ApiUrl": "https://s3.us-west-004.backblazeb2.com"}}}
    with scripted(lambda _asked: Answer(body=json.dumps(told).encode())) as server:
        monkeypatch.setattr(s3_credentials, "BACKBLAZE_AUTHORIZE", server.url)
        source = backblaze(server.host)
        assert source._endpoint == Endpoint("https://s3.us-west-004.backblazeb2.com", "us-west-004", path_style=True)
        assert source._endpoint.region == "us-west-004"
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("answer", "kind"), [(Answer(401), AccessDenied), (Answer(418), ProviderDown), (Answer(body=b"{}"), WrongConnection)]
)
def test_backblaze_may_refuse(answer: Answer, kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(lambda _asked: answer) as server:
        monkeypatch.setattr(s3_credentials, "BACKBLAZE_AUTHORIZE", server.url)
        with pytest.raises(kind):
            backblaze(server.host).list_page()


@pytest.mark.parametrize(
    ("path", "connection"), [("", {}), ("/", {}), ("s3://other/x", {"bucket": "bkt"}), ("b--use1-az4--x-s3/", {})]
)
def test_a_place_that_cannot_be_is_invalid(path: str, connection: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        open_source("s3", {**connection, "credentials": KEYS}, source_path=path, settings=allow())


APP = {"client_id": "a", "client_secret": "s", "enterprise_id": "1"}
PLACES: dict[str, tuple[str, dict[str, Any]]] = {
    "s3": ("endpoint_url", {"bucket": "b", "credentials": KEYS}),
    "gcs": ("endpoint_url", {"bucket": "b"}),
    "azure": ("endpoint_url", {"container": "c", "account_name": "acc", "credentials": {"account_key": "YQ=="}}),
    "box": ("endpoint_url", {"credentials": APP}),
    "mux": ("stream_url", {"credentials": {"access_token_id": "i", "access_token_secret": "s"}}),
}


@pytest.mark.parametrize("provider", PLACES)
@pytest.mark.parametrize(
    "written", ["https://{}/?sv=2021&sig=PRIVATE", "https://{}/#PRIVATE", "https://user:PRIVATE@{}", "{}?sig=PRIVATE"]
)
def test_an_endpoint_that_holds_a_secret_is_refused_and_not_shown(provider: str, written: str) -> None:
    name, config = PLACES[provider]
    with pytest.raises(Invalid, match="credentials") as raised:
        read_config(provider, {**config, name: written.format("host.example")})
    assert "PRIVATE" not in str(raised.value) + json.dumps(raised.value.details)
    read_config(provider, {**config, name: "https://host.example/path"})


def test_a_queue_that_holds_a_secret_is_refused() -> None:
    with pytest.raises(Invalid, match="queue_url"):
        read_config("s3", {"credentials": KEYS, "events": {"queue_url": "https://user:PRIVATE@sqs.example/1/q"}})


@pytest.mark.parametrize(
    ("provider", "endpoint_url", "right"),
    [
        ("r2", "https://acc1.r2.cloudflarestorage.com/bkt", "https://acc1.r2.cloudflarestorage.com."),
        ("s3", "https://s3.eu-west-1.amazonaws.com/bkt/", "https://s3.eu-west-1.amazonaws.com."),
        ("s3", "minio.example/bkt", "https://minio.example."),
        ("s3", "https://bkt.s3.eu-west-1.amazonaws.com", "https://s3.eu-west-1.amazonaws.com."),
        ("r2", "https://bkt.acc1.eu.r2.cloudflarestorage.com", "https://acc1.eu.r2.cloudflarestorage.com."),
        ("tigris", "https://bkt.fly.storage.tigris.dev", "https://fly.storage.tigris.dev."),
    ],
)
@pytest.mark.parametrize(("path", "bucket"), [("/x", {"bucket": "bkt"}), ("bkt/x", {})], ids=["bucket", "path"])
def test_an_endpoint_that_holds_the_bucket_is_refused_with_the_remedy(
    provider: str, endpoint_url: str, right: str, path: str, bucket: dict[str, str]
) -> None:
    config = {"endpoint_url": endpoint_url, "credentials": KEYS, **bucket}
    with pytest.raises(Invalid, match="endpoint_url must not hold the bucket") as raised:
        open_source(provider, config, source_path=path, settings=allow())
    assert f"write {right}" in raised.value.message


@pytest.mark.parametrize(
    ("provider", "endpoint_url", "bucket"),
    [
        ("s3", "https://s3.eu-west-1.amazonaws.com", "s3"),
        ("supabase", "https://ref.storage.supabase.co/storage/v1/s3", "s3"),
        ("s3", "https://minio.example", "minio"),
    ],
)
def test_an_endpoint_that_only_looks_like_the_bucket_is_taken(provider: str, endpoint_url: str, bucket: str) -> None:
    open_source(provider, {"endpoint_url": endpoint_url, "credentials": KEYS}, source_path=f"{bucket}/x", settings=allow())


@pytest.mark.parametrize("path", ["films/videos", "films/", "films"])
@pytest.mark.parametrize(
    ("provider", "config"),
    [
        ("s3", {"bucket_name": "films", "credentials": KEYS}),
        ("gcs", {"bucket": "films", "endpoint_url": "https://gcs.example"}),
        ("azure", {"container": "films", "credentials": {"account_name": "acc", "account_key": "a2V5"}}),
    ],
)
def test_a_path_that_repeats_the_bucket_is_refused_with_both_readings(provider: str, config: dict[str, Any], path: str) -> None:
    with pytest.raises(Invalid, match="begins with the bucket's own name") as raised:
        open_source(provider, config, source_path=path, settings=allow())
    assert f"{'/' + path!r}" in raised.value.message
    assert f"{'/' + path.partition('/')[2]!r}" in raised.value.message
    in_the_folder = open_source(provider, config, source_path="/films/videos", settings=allow())
    assert in_the_folder.uri.endswith("films/films/videos/")
    assert open_source(provider, config, source_path="filmstrips", settings=allow()).uri.endswith("films/filmstrips/")


def test_what_the_api_repeats_is_passed_over() -> None:
    read_config("s3", {"provider_type": "s3", "bucket": "b", "credentials": KEYS})
