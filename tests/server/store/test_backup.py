"""Backup and restore, within one kind of database and from one to the other."""

import gzip
from pathlib import Path

import pytest

from pvemcp_server.access import open_access
from pvemcp_server.audit import Event, open_audit
from pvemcp_server.config import Config
from pvemcp_server.errors import ConfigError
from pvemcp_server.store import backup, open_store, restore

pytestmark = pytest.mark.anyio


async def fill(config: Config) -> str:
    """Add rows to most tables; return the secret of the key."""
    async with open_store(config) as store, open_access(store) as access:
        _, secret = await access.keys.create("laptop", clusters=["lab"])
        await access.clusters.create(
            "lab", ["pve1"], token_id="root@pam!ours", secret="planted-token-secret"
        )
        await access.clusters.bind("lab", "default", key="laptop")
        await access.admins.create("ada", "correct horse battery")
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


async def test_a_restore_brings_back_the_whole_state(config: Config, tmp_path: Path):
    secret = await fill(config)
    async with open_store(config) as store:
        count = await backup(store, tmp_path / "state.jsonl.gz")
        await store.keys.remove((await store.keys.all())[0].id)
    assert await restore(config, tmp_path / "state.jsonl.gz", replace=True) == count
    await check(config, secret)


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
    lines = ['{"pvemcp_backup": 1, "revision": "9999"}', '{"rows": 0}']
    (tmp_path / "newer.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    with pytest.raises(ConfigError, match="newer version"):
        await restore(config, tmp_path / "newer.jsonl.gz")


async def test_a_restore_without_the_master_key_is_refused(config: Config, tmp_path: Path):
    await fill(config)
    async with open_store(config) as store:
        await backup(store, tmp_path / "state.jsonl.gz")
    (config.state_dir / "master.key").unlink()
    with pytest.raises(ConfigError, match="Put the master key of the backup in place"):
        await restore(config, tmp_path / "state.jsonl.gz", replace=True)
