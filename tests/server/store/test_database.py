"""The database: opening, transactions, change notification, and no secrets in clear text."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from sqlalchemy import text

from pvemcp_server.access import open_access
from pvemcp_server.audit import Event, mask, open_audit
from pvemcp_server.audit.reader import Kind
from pvemcp_server.config import Config
from pvemcp_server.errors import BadArgument, ConfigError, StateUnavailable
from pvemcp_server.store import Store, Topic, database, open_store, watch
from pvemcp_server.store.audit_log import lock_marks
from pvemcp_server.store.background import housekeeping
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.database import Database, DatabaseFailed, is_outage

pytestmark = pytest.mark.anyio


def files_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


@pytest.mark.parametrize(
    "url",
    ["sqlite:////proc/nowhere/state.db", "postgresql://ada:planted@127.0.0.1:1/state"],
    ids=["sqlite", "postgresql"],
)
async def test_an_unreachable_database_is_named_without_its_password(url: str, tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot be opened") as refused:
        async with open_store(Config(state_dir=tmp_path, database_url=url)):
            pass
    assert "planted" not in str(refused.value)


@pytest.mark.parametrize("connect", [Database.reading, Database.writing, Database.snapshot])
async def test_a_server_that_refuses_connections_is_a_failed_database(connect):
    database = Database(Config(database_url="postgresql://ada@127.0.0.1:1/state").database)
    with pytest.raises(DatabaseFailed, match="Connect call failed"):
        async with connect(database):
            pass


async def test_no_text_is_stored_that_one_database_refuses(store: Store):
    role = await store.roles.add(name="web", description="", grants=[], built_in=False)
    for wrong in ("a\0b", "\ud800"):
        with pytest.raises(BadArgument, match="must not have NUL"):
            await store.roles.change(role.id, description=wrong)
        with pytest.raises(BadArgument, match="must not have NUL"):
            await store.roles.add(name="new", description=wrong, grants=[], built_in=False)


async def test_sqlite_is_durable_and_private(tmp_path: Path):
    async with open_store(Config(state_dir=tmp_path)) as store:
        async with store.database.reading() as connection:
            pragmas = {
                name: await connection.scalar(text(f"PRAGMA {name}"))
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            }
        modes = {file.name: file.stat().st_mode & 0o777 for file in files_in(tmp_path)}
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 15000,
    }
    assert set(modes.values()) == {0o600}
    assert "pvemcp.sqlite3-wal" in modes


async def test_an_error_rolls_everything_back(store: Store):
    async def add_and_fail() -> None:
        times = dict.fromkeys(("created", "changed"), utc_now())
        values = {"name": "mine", "description": "", "query": {}, **times}
        async with store.database.writing() as connection:
            await store.saved_queries.add_in(connection, **values)
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        await add_and_fail()
    assert await store.saved_queries.all() == []


async def test_a_change_by_one_process_reaches_listeners_of_another(
    store: Store, other_store: Store
):
    calls: list[str] = []

    async def listener() -> None:
        calls.append("settings")

    await other_store.watch.poll()
    other_store.watch.on_change(Topic.SETTINGS, listener)
    await other_store.watch.poll()
    await store.settings.put({"row_cap": 5}, "ada")
    with anyio.fail_after(5):
        async with housekeeping(other_store.watch.run):
            while not calls:  # noqa: ASYNC110 - the other process polls
                await anyio.sleep(0.02)
    assert calls == ["settings"]


async def test_a_failing_database_is_logged_once(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    attempts: list[int] = []

    def unreachable():
        attempts.append(1)
        raise ConnectionError("connection refused")

    monkeypatch.setattr(store.database, "reading", unreachable)
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.001)
    with anyio.fail_after(5):
        async with housekeeping(store.watch.run):
            while len(attempts) < 3:  # noqa: ASYNC110 - the other task polls
                await anyio.sleep(0.001)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_cancelled_reads_leave_no_hanging_connection(store: Store):
    """Cancel reads at many points; a terminated connection must not leave its close waiting."""
    for turn in range(60):
        with anyio.move_on_after(0.0002 * turn):
            await store.watch.poll()
    closing = [task for task in asyncio.all_tasks() if "_terminate_graceful_close" in repr(task)]
    with anyio.fail_after(10):
        await asyncio.gather(*closing)
        await store.watch.poll()


@pytest.mark.postgres
async def test_a_process_that_is_frozen_in_a_transaction_stops_no_other(
    tmp_path: Path, new_postgres_database: Callable[[], str], monkeypatch
):
    config = Config(state_dir=tmp_path, database_url=new_postgres_database())
    async with open_store(config) as other:
        monkeypatch.setattr(database, "IDLE_SECONDS", 0.2)
        async with open_store(config) as frozen:

            async def append_beside_it() -> None:
                async with frozen.database.writing() as connection:
                    await lock_marks(connection, frozen.vault)
                    with anyio.fail_after(20):
                        await other.audit_log.append([Event(tool="x").row(Kind.CALL, utc_now())])

            with pytest.raises(DatabaseFailed) as lost:
                await append_beside_it()
            assert is_outage(lost.value)


async def test_a_failed_listener_is_called_again(store: Store):
    attempts: list[int] = []

    async def listener() -> None:
        attempts.append(1)
        if len(attempts) == 1:
            raise ConnectionError("not yet")

    await store.watch.poll()
    store.watch.on_change(Topic.SETTINGS, listener)
    await store.settings.put({"row_cap": 5}, "ada")
    with pytest.raises(ConnectionError):
        await store.watch.poll()
    await store.watch.poll()
    await store.watch.poll()
    assert len(attempts) == 2


async def test_files_logs_and_exports_contain_no_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Store one secret of each kind and search every byte that was written."""
    caplog.set_level("DEBUG")
    logged: list[str] = []
    async with (
        open_store(Config(state_dir=tmp_path)) as store,
        open_access(store) as access,
        open_audit(store, lambda: 180) as audit,
    ):
        _, key = await access.keys.create("laptop")
        await access.admins.create("ada", "planted password")
        await access.clusters.create(
            "lab", ["pve1"], token_id="root@pam!ours", secret="planted-token-secret"
        )
        session = await access.sessions.open(
            await access.admins.get("ada"), address="::1", agent=""
        )
        arguments = {"url": f"https://u:planted-in-url@example.org/{key}", "password": "planted-pw"}
        await audit.intent(Event(tool=key, arguments=mask(arguments, {"password"}), reason=key))
        await access.authenticator.authenticate(key, "::1")
        logged += [line async for line in audit.export_json()]
        master = (tmp_path / "master.key").read_text().strip()
        stored = b"".join(
            file.read_bytes() for file in files_in(tmp_path) if file.name != "master.key"
        )
    everything = stored + "".join(logged).encode() + caplog.text.encode()
    for secret in (key.split("_")[2], "planted", session, master):
        assert secret.encode() not in everything
        assert secret.encode().hex().encode() not in everything
    assert bytes.fromhex(master) not in everything
    assert b"laptop" in everything


async def test_the_sslmode_of_libpq_is_accepted():
    database = Database("postgresql+asyncpg://u@h/x?sslmode=require&application_name=y")
    assert database.url.query == {"ssl": "require", "application_name": "y"}
    await database.close()


async def test_housekeeping_finishes_when_the_body_fails():
    ended: list[str] = []

    async def work(stop: anyio.Event) -> None:
        await stop.wait()
        await anyio.lowlevel.checkpoint()
        ended.append("last tick")

    with pytest.raises(ConfigError, match="of the body"):
        async with housekeeping(work):
            raise ConfigError("of the body")
    assert ended == ["last tick"]


@pytest.mark.parametrize("unstorable", ["\0", "ada\0", "\ud800"])
async def test_a_text_that_no_row_can_hold_is_found_nowhere(store: Store, unstorable: str):
    for repository, column in (
        (store.admins, "name"),
        (store.keys, "name"),
        (store.second_factors, "credential"),
    ):
        assert await repository.find(**{column: unstorable}) is None
        assert await repository.all(**{column: unstorable}) == []


@pytest.mark.parametrize("answers", [True, False])
async def test_concurrent_callers_share_one_poll(store: Store, monkeypatch, answers: bool):
    polling, polls, outcomes = watch.Watch(store.database), [], []

    async def versions():
        polls.append("poll")
        await anyio.wait_all_tasks_blocked()  # the other callers wait for this poll
        if not answers:
            raise OSError("no answer")
        return {}

    async def call():
        try:
            await polling.poll_if_due()
        except StateUnavailable:
            outcomes.append("unavailable")
        else:
            outcomes.append("answered")

    monkeypatch.setattr(polling, "_versions", versions)
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(call)
    assert (outcomes, polls) == (["answered" if answers else "unavailable"] * 10, ["poll"])
