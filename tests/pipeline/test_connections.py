"""Secrets of connections: encrypted at rest, absent from everything that is shown."""

import json
import os
import stat
from typing import Any

import pytest
from cryptography.fernet import Fernet

from mixpeek_dagster.errors import Invalid
from mixpeek_dagster.models.connections import ConnectionPatch
from mixpeek_dagster.models.ids import ConnectionId
from mixpeek_dagster.models.syncs import ConnectionSpec
from mixpeek_dagster.pipeline.connections import make_connection, open_config
from mixpeek_dagster.pipeline.sync_control import change_connection
from mixpeek_dagster.settings import Settings
from mixpeek_dagster.storage.tokens import Grant
from tests.pipeline.worlds import FAKE, NOW, Library

HUSH = "hush-hush-4711"


def keyed(settings: Settings, key: str | None) -> Settings:
    from dataclasses import replace

    return replace(settings, secret_key=key)


def made(settings: Settings, **config: Any) -> tuple[dict[str, Any], str | None]:
    connection, secrets = make_connection(ConnectionSpec(provider="s3", config=config), settings=settings, now=NOW)
    return connection.config, secrets


@pytest.mark.parametrize("place", ["credentials", "options"])
def test_secrets_are_encrypted_and_come_back(settings: Settings, place: str) -> None:
    body, secrets = made(settings, bucket="b", **{place: {"type": "access_key", "secret_access_key": HUSH}})
    assert HUSH not in json.dumps(body)
    assert secrets is not None
    assert HUSH not in secrets
    opened = open_config(body, secrets, settings=settings)
    assert opened == {"bucket": "b", place: {"type": "access_key", "secret_access_key": HUSH}}


def test_no_row_of_the_catalog_holds_a_secret_in_plain_text(library: Library) -> None:
    from mixpeek_dagster.pipeline.creation import create_sync

    body = {"provider": FAKE, "connection": {"world": "default", "credentials": {"secret_access_key": HUSH}}}
    with library.warehouse.catalog.transaction() as records:
        library.sync = create_sync(records, body, warehouse=library.warehouse, bucket=library.bucket, now=NOW)
    library.world.put("a.txt", b"one")
    library.cycle()
    library.warehouse.close()
    files = [file for file in library.warehouse.settings.home.rglob("*") if file.is_file()]
    assert any(file.name == "catalog.db" for file in files)
    assert [file.name for file in files if HUSH.encode() in file.read_bytes()] == []


def test_a_connection_without_secrets_needs_no_key(settings: Settings) -> None:
    body, secrets = made(settings, bucket="b")
    assert (secrets, open_config(body, None, settings=settings)) == (None, {"bucket": "b"})
    assert not (settings.home / "secret.key").exists()


def test_the_key_beside_the_catalog_is_made_once_and_for_its_owner_only(settings: Settings) -> None:
    _, first = made(settings, credentials={"a": HUSH})
    key = (settings.home / "secret.key").read_text()
    assert stat.S_IMODE(os.stat(settings.home / "secret.key").st_mode) == 0o600
    made(settings, credentials={"a": HUSH})
    assert (settings.home / "secret.key").read_text() == key
    assert open_config({}, first, settings=settings) == {"credentials": {"a": HUSH}}
    assert sorted(file.name for file in settings.home.iterdir()) == ["secret.key"]


def test_the_wrong_key_is_said_in_words(settings: Settings) -> None:
    _, secrets = made(keyed(settings, Fernet.generate_key().decode()), credentials={"a": HUSH})
    with pytest.raises(Invalid, match="set MIXPEEK_SECRET_KEY to the key that encrypted them") as caught:
        open_config({}, secrets, settings=keyed(settings, Fernet.generate_key().decode()))
    assert HUSH not in str(caught.value)


def test_something_that_is_no_key_is_said_in_words_without_repeating_it(settings: Settings) -> None:
    with pytest.raises(Invalid, match="MIXPEEK_SECRET_KEY is not a Fernet key") as caught:
        made(keyed(settings, "my-password"), credentials={"a": HUSH})
    assert "my-password" not in str(caught.value)


def test_keys_can_be_changed_one_after_the_other(settings: Settings) -> None:
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    _, secrets = made(keyed(settings, old), credentials={"a": HUSH})
    both = keyed(settings, f"{new}, {old}")
    assert open_config({}, secrets, settings=both) == {"credentials": {"a": HUSH}}
    _, again = made(both, credentials={"a": HUSH})
    assert open_config({}, again, settings=keyed(settings, new)) == {"credentials": {"a": HUSH}}


def test_a_reference_is_read_when_it_is_used(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    _, secrets = made(settings, credentials={"keys": {"secret_access_key": {"env": "MIXPEEK_TEST_SECRET"}}})
    monkeypatch.setenv("MIXPEEK_TEST_SECRET", "one")
    assert open_config({}, secrets, settings=settings)["credentials"] == {"keys": {"secret_access_key": "one"}}
    monkeypatch.setenv("MIXPEEK_TEST_SECRET", "two")
    assert open_config({}, secrets, settings=settings)["credentials"] == {"keys": {"secret_access_key": "two"}}
    monkeypatch.delenv("MIXPEEK_TEST_SECRET")
    with pytest.raises(Invalid, match="MIXPEEK_TEST_SECRET, which the credentials name, is not set"):
        open_config({}, secrets, settings=settings)


@pytest.mark.parametrize("name", ["HOME", "AWS_SECRET_ACCESS_KEY", "mixpeek_x", ""])
def test_other_variables_of_the_server_cannot_be_read(settings: Settings, name: str) -> None:
    _, secrets = made(settings, credentials={"a": {"env": name}})
    with pytest.raises(Invalid, match="may only name environment variables that start with MIXPEEK_"):
        open_config({}, secrets, settings=settings)


@pytest.mark.parametrize("name", ["MIXPEEK_SECRET_KEY", "MIXPEEK_WEAVIATE_API_KEY", "MIXPEEK_CATALOG_URL"])
def test_the_servers_own_secrets_cannot_be_sent_to_a_provider(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, HUSH)
    _, secrets = made(settings, credentials={"access_key_id": {"env": name}})
    with pytest.raises(Invalid, match="may not name") as caught:
        open_config({}, secrets, settings=settings)
    assert HUSH not in str(caught.value)


def test_a_connection_that_was_changed_is_opened_again(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    first = library.warehouse.source(library.sync)
    monkeypatch.setattr("mixpeek_dagster.pipeline.warehouse.LOOK_AGAIN_S", 0.0)
    assert library.warehouse.source(library.sync) is first
    with library.warehouse.catalog.transaction() as records:  # as another process does it
        connection, _ = records.syncs.connection(library.sync.connection_id)
        changed = connection.model_copy(update={"updated_at": NOW})
        records.syncs.put_connection(changed, body={"world": "elsewhere"}, secrets=None)
    assert library.warehouse.source(library.sync).uri == "fake://elsewhere/"


# Tokens that change while they are used


def boxed(library: Library, refresh_token: Any) -> str:
    """A recorded Box connection."""
    credentials = {"client_id": "app", "client_secret": HUSH, "access_token": "first", "refresh_token": refresh_token}
    spec = ConnectionSpec(provider="box", config={"credentials": credentials})
    connection, secrets = make_connection(spec, settings=library.warehouse.settings, now=NOW, name="box")
    with library.warehouse.catalog.transaction() as records:
        records.syncs.add_connection(connection, body=connection.config, secrets=secrets)
    return connection.connection_id


def opened(library: Library) -> dict[str, Any]:
    with library.warehouse.catalog.reading() as records:
        connection, secrets = records.syncs.connection("box")
    return open_config(connection.config, secrets, settings=library.warehouse.settings)


@pytest.mark.parametrize("refresh_token", ["given", {"env": "MIXPEEK_BOX_REFRESH"}], ids=["in the config", "in the environment"])
def test_a_new_pair_of_tokens_is_kept_encrypted_and_found_by_other_processes(
    library: Library, refresh_token: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIXPEEK_BOX_REFRESH", "given")
    connection_id = ConnectionId(boxed(library, refresh_token))
    before = opened(library)
    tokens = library.warehouse.tokens(connection_id)
    assert tokens.load() is None
    tokens.save(Grant("access-2", 3600, "refresh-2"))
    tokens.save(Grant("access-3", 3600, "refresh-3"))
    found = library.warehouse.tokens(connection_id).load()
    assert found is not None
    assert (found.access_token, found.refresh_token) == ("access-3", "refresh-3")
    assert opened(library) == before, "the provider's own model never sees them"
    library.warehouse.close()
    assert all(b"refresh-3" not in file.read_bytes() for file in library.warehouse.settings.home.rglob("*") if file.is_file())


def test_a_user_who_logs_in_again_is_believed_over_what_was_kept(library: Library) -> None:
    connection_id = ConnectionId(boxed(library, "given"))
    library.warehouse.tokens(connection_id).save(Grant("access-2", 3600, "refresh-2"))
    same = ConnectionPatch(provider_config={"folder_id": "7"})
    change_connection(library.warehouse, "box", same)
    assert opened(library)["folder_id"] == "7"
    assert library.warehouse.tokens(connection_id).load() is not None, "a change of something else loses no tokens"
    new = {"client_id": "app", "client_secret": HUSH, "access_token": "again", "refresh_token": "given-again"}
    change_connection(library.warehouse, "box", ConnectionPatch(provider_config={"credentials": new}))
    assert library.warehouse.tokens(connection_id).load() is None


def test_credentials_from_the_environment_stay_references_when_something_else_changes(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIXPEEK_BOX_REFRESH", "one")
    boxed(library, {"env": "MIXPEEK_BOX_REFRESH"})
    change_connection(library.warehouse, "box", ConnectionPatch(provider_config={"folder_id": "7"}))
    monkeypatch.setenv("MIXPEEK_BOX_REFRESH", "two")
    assert opened(library)["credentials"]["refresh_token"] == "two"
