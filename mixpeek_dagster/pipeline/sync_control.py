"""What people do to syncs and connections: make, change, pause, trigger, give up on dead letters. Passes are in `syncs`."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from mixpeek_dagster import plugins
from mixpeek_dagster.catalog import Records
from mixpeek_dagster.catalog.syncs import KeyState
from mixpeek_dagster.errors import BadRequest, Forbidden, Invalid, MixpeekError, ProviderError, WrongState
from mixpeek_dagster.models.buckets import Bucket
from mixpeek_dagster.models.connections import FIXED, ConnectionCreate, ConnectionPatch, SyncCreate, SyncPatch
from mixpeek_dagster.models.ids import ConnectionId, SyncJobId, new_id
from mixpeek_dagster.models.objects import GIVEN_UP
from mixpeek_dagster.models.syncs import Connection, ConnectionSpec, Sync, SyncStatus
from mixpeek_dagster.pipeline.batches import submit
from mixpeek_dagster.pipeline.connections import make_connection, open_config, unseal
from mixpeek_dagster.pipeline.creation import checked_spec, create_sync, validation_words
from mixpeek_dagster.pipeline.kept_tokens import HeldTokens, sealed_tokens
from mixpeek_dagster.pipeline.sharing import leave_files
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.settings import Settings
from mixpeek_dagster.storage.connect import FSSPEC, canonical, open_source, read_config
from mixpeek_dagster.storage.egress import check_url
from mixpeek_dagster.storage.tokens import TokenKeeper

SUSPEND_AFTER = 5
"""So many failed tests in a row suspend a connection."""


def check_provider(provider: str, config: dict[str, Any], *, settings: Settings) -> str:
    """The registered name of a provider that a tenant may use.

    Raises:
        UnknownName: nobody registered it, and it is no dotted path into a module that the operator opened to requests.
        Forbidden: it reads this machine, and the operator named no folder for that.
        UrlRefused: its endpoint may not be reached.
    """
    name = canonical(provider)
    if not name.startswith(FSSPEC):
        plugins.check_named("providers", name, modules=settings.plugin_modules)
    if name == "local" and not settings.local_roots:
        raise Forbidden("Folders of this machine are closed to requests; an operator can open some in MIXPEEK_LOCAL_ROOTS.")
    endpoint = config.get("endpoint_url")
    if isinstance(endpoint, str):
        check_url(endpoint if "://" in endpoint else f"https://{endpoint}", allowed_hosts=settings.allowed_hosts)
    return name


def make_sync(records: Records, body: SyncCreate, *, warehouse: Warehouse, bucket: Bucket) -> Sync:
    """Record a sync of either form.

    Raises:
        As `check_provider` and `create_sync`; WrongState when the connection is suspended.
    """
    if body.provider is not None:
        check_provider(body.provider, dict(body.connection or {}), settings=warehouse.settings)
    elif records.syncs.connection(str(body.connection_id))[0].status != "ACTIVE":
        raise WrongState(f"Connection {body.connection_id} is not active.")
    sync = create_sync(records, body.wire, warehouse=warehouse, bucket=bucket, now=warehouse.now())
    if body.connection_id is not None:
        connection, secrets = records.syncs.connection(sync.connection_id)
        config = open_config(connection.config, secrets, settings=warehouse.settings)
        open_source(connection.provider, config, source_path=sync.spec.source_path, settings=warehouse.settings)
    return sync


def change_sync(records: Records, sync: Sync, body: SyncPatch, *, now: str) -> Sync:
    """Change what the body names.

    Raises:
        BadRequest: it names what a sync keeps for its life, or a status that cannot be set. Invalid: a value does not fit.
        As `checked_spec`.
    """
    fixed = [name for name in FIXED if name in body.changes]
    if fixed:
        raise BadRequest(f"A sync's {fixed[0]} cannot change: make another sync.")
    try:
        changed = sync.spec.changed(body.changes)
    except ValidationError as error:
        raise Invalid(f"Sync: {validation_words(error)}") from error
    spec = checked_spec(records, changed, namespace_id=sync.namespace_id) if "batch_collection_ids" in body.changes else changed
    records.syncs.set(sync.sync_id, now=now, spec=spec.model_dump(mode="json"))
    wanted = body.status or {True: "ACTIVE", False: "SUSPENDED", None: None}[body.is_active]
    if wanted not in (None, "ACTIVE", "SUSPENDED"):
        raise BadRequest("Only ACTIVE and SUSPENDED can be set as a sync's status.")
    if wanted == "SUSPENDED":
        pause(records, sync, now=now)
    elif wanted == "ACTIVE":
        resume(records, sync, now=now)
    return records.syncs.get(sync.sync_id)


def pause(records: Records, sync: Sync, *, now: str) -> None:
    """No further page is taken after the one that is under way; the place is kept."""
    records.syncs.set(sync.sync_id, now=now, status=SyncStatus.SUSPENDED)


def resume(records: Records, sync: Sync, *, now: str) -> None:
    """Go on where the sync was paused, now; one that is not paused stays as it is, and one that was done is done."""
    records.syncs.hold(sync.sync_id)
    sync = records.syncs.get(sync.sync_id)
    if sync.status is not SyncStatus.SUSPENDED:
        return
    is_done = sync.passes > 0 and sync.next_pass_at is None
    status = SyncStatus.COMPLETED if is_done else SyncStatus.ACTIVE if sync.passes else SyncStatus.PENDING
    records.syncs.set(sync.sync_id, now=now, status=status, next_pass_at=None if is_done else now)


def delete_sync(records: Records, warehouse: Warehouse, sync: Sync, *, now: str) -> None:
    """Delete a sync, with its connection if that was made for it alone. Its objects and their documents stay; a sync that is made
    again for the same place takes them over.

    Objects in the batch that it was filling are submitted: what waits to be read ends with the reason, and does not wait for ever.
    """
    records.syncs.take_turn(sync.bucket_id)
    records.syncs.hold(sync.sync_id)
    left = [] if sync.spec.skip_batch_submission else records.batches.open_of_sync(sync.sync_id)
    for batch in left:
        records.batches.hold(batch.batch_id)
        with suppress(BadRequest):  # an empty one, or one that goes to collections that cannot take it
            submit(records, batch, settings=warehouse.settings, now=now)
    records.syncs.remove(sync.sync_id, keeps_keys=leave_files(records, warehouse, sync, now=now))
    records.syncs.remove_unnamed_connection(sync.connection_id)


def trigger(records: Records, sync: Sync, *, full: bool, now: str) -> SyncJobId:
    """Ask for a pass now, whatever the interval; the job it will be. While a pass runs, the next one follows it at once.

    Raises:
        WrongState: the sync is paused.
    """
    if sync.status is SyncStatus.SUSPENDED:
        raise WrongState(f"Sync {sync.sync_id} is paused; resume it first.")
    records.syncs.hold(sync.sync_id)  # of two requests the second finds the first one's job
    job_id = records.syncs.queued_job(sync.sync_id)
    if job_id is None:
        job_id = SyncJobId(new_id("job"))
        records.syncs.add_job(job_id, sync.sync_id, trigger="manual", now=now, queued=True)
    records.syncs.set(sync.sync_id, now=now, triggered_at=now, **({"pending_full": True} if full else {}))
    return job_id


def confirm_deletes(records: Records, sync: Sync, *, now: str) -> int:
    """Allow as many deletes as the last pass held back; how many. The pass that makes them starts now: if it misses more, it holds
    them back again.

    Raises:
        WrongState: nothing is held back, or the sync is paused.
    """
    records.syncs.hold(sync.sync_id)
    last = records.syncs.get(sync.sync_id).last_counters
    held = last.held if last else 0
    if not held:
        raise WrongState(f"Sync {sync.sync_id} holds no deletes back: there is nothing to confirm.")
    trigger(records, sync, full=False, now=now)
    records.syncs.set(sync.sync_id, now=now, confirmed_deletes=held)
    return held


def requeue(records: Records, sync: Sync, states: Sequence[KeyState | None], *, now: str) -> int:
    """Let the next pass, which starts now, try dead letters again; how many. For `states` see `sync_reports.dead_letters`."""
    count = records.syncs.requeue(sync.sync_id, [one for one in states if one is not None])
    if None in states:
        count += records.objects.set_tries(sync.sync_id, 0)
    if count:
        trigger(records, sync, full=False, now=now)
    return count


def give_up(records: Records, sync: Sync, states: Sequence[KeyState | None], *, now: str) -> int:
    """Show dead letters no more; how many."""
    keys = [one for one in states if one is not None]
    count = records.syncs.give_up(sync.sync_id, keys, reason="marked as failed", now=now)
    return count + (records.objects.set_tries(sync.sync_id, GIVEN_UP) if None in states else 0)


def save_connection(warehouse: Warehouse, body: ConnectionCreate) -> Connection:
    """Record a connection, after a test unless the body says otherwise.

    Raises:
        As `check_provider`; ProviderError when the test fails, and nothing is recorded; AlreadyExists for a taken name.
    """
    config = {key: value for key, value in body.provider_config.items() if key != "provider_type"}
    name = check_provider(body.provider_type, config, settings=warehouse.settings)
    read_config(name, config)
    if body.test_before_save:
        config |= _test_place(warehouse, name, config)
    connection, secrets = make_connection(
        ConnectionSpec(provider=name, config=config), settings=warehouse.settings, now=warehouse.now(), name=body.name
    )
    said = {"description": body.description, "metadata": body.metadata, "write_enabled": body.write_enabled}
    connection = connection.model_copy(update=said)
    with warehouse.catalog.transaction() as records:
        records.syncs.add_connection(connection, body=connection.config, secrets=secrets)
    return connection


def change_connection(warehouse: Warehouse, identifier: str, body: ConnectionPatch) -> Connection:
    """Change what the body names; credentials that are left out of a new config stay, with the tokens they were changed for."""
    with warehouse.catalog.reading() as records:
        before, secrets = records.syncs.connection(identifier)
    given = {key: value for key, value in (body.provider_config or {}).items() if key != "provider_type"}
    stays = not _has_secrets(given)
    if body.provider_config is not None:
        given |= unseal(secrets, warehouse.settings) if stays and secrets is not None else {}
        opened = open_config(*_sealed(before.provider, given, warehouse), settings=warehouse.settings)
        check_provider(before.provider, opened, settings=warehouse.settings)
        read_config(before.provider, opened)
        if body.test_before_save and stays:
            test_place(warehouse, before.provider, opened, tokens=warehouse.tokens(before.connection_id))
        elif body.test_before_save:
            given |= _test_place(warehouse, before.provider, given)
    said = body.model_dump(include={"name", "description", "metadata", "write_enabled"}, exclude_none=True)
    if body.wanted_status is not None:
        said |= {"status": body.wanted_status, "consecutive_failures": 0}
    with warehouse.catalog.transaction() as records:
        before, secrets = records.syncs.connection(before.connection_id)  # tokens may have been changed meanwhile
        config, now = dict(before.config), warehouse.now()
        if body.provider_config is not None:
            given |= unseal(secrets, warehouse.settings) if stays and secrets is not None else {}
            config, secrets = _sealed(before.provider, given, warehouse)
        after = before.model_copy(update={**said, "config": config, "updated_at": now})
        records.syncs.put_connection(after, body=config, secrets=secrets)
    return after


def test_connection(warehouse: Warehouse, identifier: str, source_path: str | None) -> tuple[bool, str]:
    """Whether the provider answers and takes the credentials, and what it says; the result is kept on the connection."""
    with warehouse.catalog.reading() as records:
        connection, _ = records.syncs.connection(identifier)
        used = [sync.spec.source_path for sync in records.syncs.all() if sync.connection_id == connection.connection_id]
    path = source_path if source_path is not None else next(iter(used), "")
    problem: str | None = None
    is_down = False
    try:
        warehouse.open_source(connection.connection_id, path).check()
    except MixpeekError as error:
        problem, is_down = error.message[:1000], isinstance(error, ProviderError)
    if problem and not is_down:  # the question was wrong, which says nothing about the connection
        return False, problem
    failures = connection.consecutive_failures + 1 if problem else 0
    status = connection.status if failures < SUSPEND_AFTER else "SUSPENDED"
    result = {"consecutive_failures": failures, "last_error": problem, "last_used_at": warehouse.now(), "status": status}
    with warehouse.catalog.transaction() as records:
        connection, secrets = records.syncs.connection(connection.connection_id)  # the test may have changed its tokens
        records.syncs.put_connection(connection.model_copy(update=result), body=connection.config, secrets=secrets)
    return problem is None, problem or "The place can be listed and read."


def delete_connection(warehouse: Warehouse, identifier: str) -> ConnectionId:
    """Raises WrongState while a sync uses it."""
    with warehouse.catalog.transaction() as records:
        connection, _ = records.syncs.connection(identifier)
        used = [sync for sync in records.syncs.all() if sync.connection_id == connection.connection_id]
        if used:
            raise WrongState(f"{len(used)} syncs use connection {connection.name!r} ({used[0].sync_id}): delete them first.")
        records.syncs.remove_connection(connection.connection_id)
    return connection.connection_id


def _has_secrets(config: dict[str, Any]) -> bool:
    credentials = config.get("credentials")
    return isinstance(credentials, dict) and bool(set(credentials) - {"type"})


def _test_place(warehouse: Warehouse, provider: str, config: dict[str, Any]) -> dict[str, Any]:
    """Contact the provider, where the config alone says which place to look at; elsewhere the first sync finds out.

    Returns what has to be recorded with the config: tokens that the test was given in exchange for those in it.
    """
    tokens, opened = HeldTokens(), open_config(*_sealed(provider, config, warehouse), settings=warehouse.settings)
    test_place(warehouse, provider, opened, tokens=tokens)
    return {"tokens": sealed_tokens(tokens.grant, opened)} if tokens.grant is not None else {}


def test_place(warehouse: Warehouse, provider: str, config: dict[str, Any], *, tokens: TokenKeeper) -> bool:
    """Contact the provider with an opened config; False when only a sync's source path would say which place to look at."""
    try:
        source = open_source(provider, config, source_path="", settings=warehouse.settings, tokens=tokens)
    except Invalid:
        read_config(provider, config)
        return False
    source.check()
    return True


def _sealed(provider: str, config: dict[str, Any], warehouse: Warehouse) -> tuple[dict[str, Any], str | None]:
    made, secrets = make_connection(
        ConnectionSpec(provider=provider, config=config), settings=warehouse.settings, now=warehouse.now()
    )
    return made.config, secrets
