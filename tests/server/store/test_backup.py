"""Backup and restore, within one kind of database and from one to the other."""

import gzip
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from pvemcp_server.access import open_access
from pvemcp_server.approvals import Approvals, PlannedCall
from pvemcp_server.audit import AuditGuard, Event, open_audit
from pvemcp_server.config import Config
from pvemcp_server.errors import ConfigError
from pvemcp_server.store import backup, open_store, restore
from pvemcp_server.store.export import FORMAT, _SignedLines, open_export
from pvemcp_server.store.state_lock import state_lock

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("migrated")]


async def fill(config: Config) -> str:
    """Add rows to most tables; return the secret of the key."""
    async with open_store(config) as store, open_access(store) as access:
        _, secret = await access.keys.create("laptop", clusters=["lab"])
        await access.clusters.create(
            "lab", ["pve1"], token_id="root@pam!ours", secret="planted-token-secret"
        )
        await access.clusters.bind("lab", "default", key="laptop")
        await access.admins.create("ada", "correct horse battery")
        await store.webhooks.replace("https://hooks.example:443", "https://hooks.example/x", "key")
        async with open_audit(store, lambda: 180) as audit:
            await audit.intent(Event(tool="ChangeVmState", arguments={"vmid": 100}))
    return secret


async def check(config: Config, secret: str) -> None:
    """Check that the state is complete, works, and accepts new rows."""
    async with open_store(config) as store, open_access(store) as access:
        caller = await access.authenticator.authenticate(secret, "127.0.0.1")
        assert caller.key_name == "laptop"
        [identity] = await store.identities.all(id=caller.identities["lab"])
        lab = await access.clusters.get("lab")
        assert await store.identities.secret(identity, lab) == "planted-token-secret"
        assert (await access.admins.sign_in("ada", "correct horse battery")).name == "ada"
        webhook = await store.webhooks.find()
        assert await store.webhooks.opened(webhook) == ("https://hooks.example/x", "key")
        async with open_audit(store, lambda: 180) as audit:
            assert await audit.verify() == []
            assert [entry.tool for entry in await audit.find()] == ["ChangeVmState"]
            await audit.intent(Event(tool="BackupVm"))
            assert await audit.verify() == []
        await access.clusters.create("more", ["pve2"], token_id="a@pve!bc", secret="another")


@pytest.fixture
def other_config(request: pytest.FixtureRequest, config: Config, tmp_path: Path) -> Config:
    """Configure a second server on the other kind of database, with the same master key."""
    options = {"state_dir": tmp_path / "other", "master_key_file": config.state_dir / "master.key"}
    if config.database_url is not None:
        return Config(**options)
    create = request.getfixturevalue("new_postgres_database")
    return Config(**options, database_url=create())


async def test_an_approval_that_was_used_does_not_come_back(config: Config, tmp_path: Path):
    secret, file = await fill(config), tmp_path / "state.jsonl.gz"
    async with open_store(config) as store, open_access(store) as access:
        caller = await access.authenticator.authenticate(secret, "127.0.0.1")
        approvals = Approvals(store, "")
        call = PlannedCall(caller, "", "DeleteBackup", "lab", {}, (), {}, ())
        approval, _ = await approvals.ask(call)
        await approvals.decide(approval.id, "ada", approve=True)
        await backup(store, file)
        assert await approvals.use(call)
    await restore(config, file, replace=True)
    async with open_store(config) as store:
        assert await Approvals(store, "").use(call) is None


async def test_a_restore_brings_back_the_whole_state(config: Config, tmp_path: Path):
    secret = await fill(config)
    async with open_store(config) as store:
        count = await backup(store, tmp_path / "state.jsonl.gz")
        await store.keys.remove((await store.keys.all())[0].id)
        async with open_audit(store, lambda: 180) as audit:
            await audit.intent(Event(tool="BackupVm"))
        await AuditGuard(store).note_head()
    assert await restore(config, tmp_path / "state.jsonl.gz", replace=True) == count
    await check(config, secret)  # the audit is whole: the restore has noted its older end


async def test_nothing_is_restored_while_a_server_runs(config: Config, tmp_path: Path):
    await fill(config)
    async with open_store(config) as store:
        await backup(store, tmp_path / "state.jsonl.gz")
        await store.keys.remove((await store.keys.all())[0].id)
        left = await store.keys.all()
    with (
        state_lock(config, shared=not store.database.is_sqlite),
        pytest.raises(ConfigError, match="already runs"),
    ):
        await restore(config, tmp_path / "state.jsonl.gz", replace=True)
    async with open_store(config) as store:
        assert await store.keys.all() == left


@pytest.mark.postgres
async def test_a_restore_works_on_the_other_kind_of_database(
    config: Config, other_config: Config, tmp_path: Path
):
    secret = await fill(config)
    async with open_store(config) as store:
        await backup(store, tmp_path / "state.jsonl.gz")
    await restore(other_config, tmp_path / "state.jsonl.gz")
    await check(other_config, secret)


async def test_a_backup_contains_no_secret_and_is_private(config: Config, tmp_path: Path):
    secret = await fill(config)
    async with open_store(config) as store:
        await backup(store, tmp_path / "state.jsonl.gz")
    assert (tmp_path / "state.jsonl.gz").stat().st_mode & 0o777 == 0o600
    text = gzip.decompress((tmp_path / "state.jsonl.gz").read_bytes()).decode()
    master = (config.state_dir / "master.key").read_text().strip()
    for value in (secret, "planted-token-secret", "correct horse battery", master):
        assert value not in text


async def test_a_restore_backs_up_the_replaced_state(config: Config, tmp_path: Path):
    await fill(config)
    async with open_store(config) as store:
        await backup(store, tmp_path / "state.jsonl.gz")
    with pytest.raises(ConfigError, match="not empty"):
        await restore(config, tmp_path / "state.jsonl.gz")
    await restore(config, tmp_path / "state.jsonl.gz", replace=True)
    [replaced] = (config.state_dir / "backups").iterdir()
    assert replaced.name.startswith("before-restore-")


async def test_a_truncated_backup_is_refused(config: Config, tmp_path: Path):
    await fill(config)
    whole, cut = tmp_path / "state.jsonl.gz", tmp_path / "cut.jsonl.gz"
    async with open_store(config) as store:
        await backup(store, whole)
    lines = gzip.decompress(whole.read_bytes()).splitlines(keepends=True)
    cut.write_bytes(gzip.compress(b"".join(lines[:-2])))
    with pytest.raises(ConfigError, match="not a complete backup"):
        await restore(config, cut, replace=True)
    cut.write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(ConfigError, match="not a readable backup"):
        await restore(config, cut, replace=True)


async def test_an_unsigned_file_takes_no_more_memory_than_a_piece(tmp_path: Path):
    file, master = tmp_path / "bomb.jsonl.gz", b"m" * 32
    with gzip.open(file, "wb", 1) as stream:
        for _ in range(64):
            stream.write(b" " * (1 << 20))  # all on one line
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError, match="not a complete backup"):
            open_export(file, master)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


Lines = list[bytes]


def _edited(lines: Lines) -> Lines:
    return [line.replace(b'"name":"ada"', b'"name":"eve"') for line in lines]


def _counted_again(lines: Lines) -> Lines:
    return [*lines[:-3], b'{"rows":%d}\n' % (len(lines) - 4), lines[-1]]


CHANGES: dict[str, Callable[[Lines], Lines]] = {
    "edited": _edited,
    "row removed": _counted_again,
    "header": lambda lines: [lines[0].replace(b"0001", b"0000"), *lines[1:]],
    "order": lambda lines: [lines[0], *reversed(lines[1:-2]), *lines[-2:]],
    "row added": lambda lines: [*lines[:-2], lines[1], *lines[-2:]],
    "signature": lambda lines: [*lines[:-1], b'{"hmac": "' + b"0" * 64 + b'"}\n'],
    "two signatures": lambda lines: [*lines, lines[-1]],
}


async def test_a_backup_that_was_changed_is_refused_and_nothing_is_replaced(
    config: Config, tmp_path: Path
):
    secret = await fill(config)
    path = tmp_path / "state.jsonl.gz"
    async with open_store(config) as store:
        await backup(store, path)
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    for name, change in CHANGES.items():
        assert change(lines) != lines, name
        path.write_bytes(gzip.compress(b"".join(change(lines))))
        with pytest.raises(ConfigError, match="was changed after it was written"):
            await restore(config, path, replace=True)
        assert not (config.state_dir / "backups").exists(), name
    await check(config, secret)


async def test_a_backup_exchanged_while_it_is_restored_changes_nothing(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    secret = await fill(config)
    path = tmp_path / "state.jsonl.gz"
    async with open_store(config) as store:
        await backup(store, path)
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)

    async def exchange(*_args: object) -> None:
        path.write_bytes(gzip.compress(b"".join(_edited(lines))))

    monkeypatch.setitem(restore.__globals__, "_back_up", exchange)
    with pytest.raises(ConfigError, match="was changed after it was written"):
        await restore(config, path, replace=True)
    await check(config, secret)


async def test_a_restore_into_an_empty_state_needs_only_the_master_key(
    config: Config, tmp_path: Path
):
    secret = await fill(config)
    async with open_store(config) as store:
        count = await backup(store, tmp_path / "state.jsonl.gz")
    master_key_file = config.state_dir / "master.key"
    empty = Config(state_dir=tmp_path / "empty", master_key_file=master_key_file)
    assert await restore(empty, tmp_path / "state.jsonl.gz") == count
    await check(empty, secret)


async def test_a_state_of_another_master_key_is_not_replaced(config: Config, tmp_path: Path):
    await fill(config)
    async with open_store(config) as store:
        await backup(store, tmp_path / "state.jsonl.gz")
    other = Config(state_dir=tmp_path / "other")
    async with open_store(other):
        pass
    mixed = Config(state_dir=tmp_path / "other", master_key_file=config.state_dir / "master.key")
    with pytest.raises(ConfigError, match="belongs to another master key"):
        await restore(mixed, tmp_path / "state.jsonl.gz", replace=True)


@pytest.mark.parametrize("prepared", ["file", "link"])
async def test_a_backup_is_not_written_through_a_prepared_name(
    config: Config, tmp_path: Path, prepared: str
):
    victim, path = tmp_path / "victim", tmp_path / "state.jsonl.gz"
    victim.write_text("unchanged")
    for name in (path, path.with_name(f".{path.name}.unfinished")):
        if prepared == "link":
            name.symlink_to(victim)
        else:
            name.write_text("unchanged")
            name.chmod(0o666)
    held = path.open("rb")
    await fill(config)
    async with open_store(config) as store:
        await backup(store, path)
    with held:
        assert held.read() == b"unchanged"
    assert victim.read_text() == "unchanged"
    assert not path.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_restore_with_the_wrong_master_key_changes_nothing(config: Config, tmp_path: Path):
    secret = await fill(config)
    async with open_store(config) as store:
        await backup(store, tmp_path / "state.jsonl.gz")
    wrong = config.model_copy(update={"master_key_file": tmp_path / "wrong.key"})
    (tmp_path / "wrong.key").write_text("00" * 32)
    with pytest.raises(ConfigError, match="master key"):
        await restore(wrong, tmp_path / "state.jsonl.gz", replace=True)
    await check(config, secret)


async def test_a_backup_of_a_newer_version_is_refused(config: Config, tmp_path: Path):
    await fill(config)
    master = bytes.fromhex((config.state_dir / "master.key").read_text())
    with gzip.open(tmp_path / "newer.jsonl.gz", "wb") as stream:
        lines = _SignedLines(stream, master)
        lines.write({"pvemcp_backup": FORMAT, "revision": "9999"})
        lines.write({"rows": 0})
        lines.sign()
    with pytest.raises(ConfigError, match="newer version"):
        await restore(config, tmp_path / "newer.jsonl.gz")


async def test_a_restore_without_the_master_key_is_refused(config: Config, tmp_path: Path):
    await fill(config)
    async with open_store(config) as store:
        await backup(store, tmp_path / "state.jsonl.gz")
    (config.state_dir / "master.key").unlink()
    with pytest.raises(ConfigError, match="Put the master key of the backup in place"):
        await restore(config, tmp_path / "state.jsonl.gz", replace=True)
