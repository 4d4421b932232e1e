"""Encryption of secrets at rest."""

import secrets
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from pvemcp_server.access import Access, open_access
from pvemcp_server.audit import Audit, Event
from pvemcp_server.config import Config
from pvemcp_server.errors import CallError, ConfigError, Undecryptable
from pvemcp_server.store import Store, open_store

pytestmark = pytest.mark.anyio


def files_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def encrypted_values(store: Store) -> list[bytes]:
    async with store.database.reading() as connection:
        return list(await connection.scalars(text("SELECT secret FROM identities ORDER BY id")))


@pytest.fixture
async def cluster(access: Access) -> None:
    await access.clusters.create("lab", ["pve1"], token_id="a@pve!one", secret="first-secret")
    await access.clusters.add_identity("lab", "second", token_id="b@pve!two", secret="second")


async def test_a_token_secret_is_stored_encrypted(store: Store, cluster: None):
    assert all(b"secret" not in value for value in await encrypted_values(store))
    (first, second), [lab] = await store.identities.all(), await store.clusters.all()
    assert await store.identities.secret(first, lab) == "first-secret"
    assert await store.identities.secret(second, lab) == "second"
    assert await store.identities.secret(replace(second, id=99), lab) is None


async def test_a_secret_moved_to_another_row_cannot_be_decrypted(store: Store, cluster: None):
    _, second = await store.identities.all()
    async with store.database.writing() as connection:
        await connection.execute(
            text("UPDATE identities SET secret = :stolen WHERE id = :id"),
            {"stolen": (await encrypted_values(store))[0], "id": second.id},
        )
    [lab] = await store.clusters.all()
    with pytest.raises(CallError, match="not sent") as refused:
        await store.identities.secret(second, lab)
    assert isinstance(refused.value.__cause__, Undecryptable)


async def test_other_processes_can_decrypt_after_a_rotation(
    store: Store, other_store: Store, cluster: None
):
    before = await encrypted_values(store)
    assert await store.vault.rotate() == 2
    after = await encrypted_values(store)
    assert {value[:4] for value in before}.isdisjoint(value[:4] for value in after)
    for opened in (store, other_store):
        [lab] = await opened.clusters.all()
        assert [
            await opened.identities.secret(identity, lab)
            for identity in await opened.identities.all()
        ] == ["first-secret", "second"]


async def test_keys_created_before_a_rotation_stay_valid(store: Store, access: Access):
    _, before = await access.keys.create("before")
    await store.vault.rotate()
    _, after = await access.keys.create("after")
    for secret in (before, after):
        assert await access.authenticator.authenticate(secret, "127.0.0.1")


async def test_a_new_master_key_replaces_the_old_one(config: Config, tmp_path: Path):
    new = secrets.token_bytes(32)
    async with open_store(config) as store:
        await Audit(store).intent(Event(tool="BackupVm"))
        before = store.vault.derive("something")
        await store.vault.change_master(new)
        derived = store.vault.derive("something")
        assert derived != before
    with pytest.raises(ConfigError, match="does not belong"):
        async with open_store(config):
            pass
    (config.state_dir / "master.key").write_text(new.hex())
    async with open_store(config) as store:
        assert store.vault.derive("something") == derived
        assert store.vault.derive("something else") != derived
        await Audit(store).intent(Event(tool="DeleteVm"))
        assert await Audit(store).verify() == []


async def test_the_master_key_is_created_once_and_private(config: Config):
    async with open_store(config):
        key = config.state_dir / "master.key"
        assert key.stat().st_mode & 0o777 == 0o600
        created = key.read_text()
    async with open_store(config):
        assert key.read_text() == created


async def test_concurrent_starts_create_one_state(config: Config):
    derived: set[bytes] = set()

    async def start() -> None:
        async with open_store(config) as store, open_access(store) as access:
            derived.add(store.vault.derive("something"))
            assert len(await access.roles.all()) == 3

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(start)
    assert len(derived) == 1
    assert {file.name for file in files_in(config.state_dir)} >= {"master.key"}
    assert not [file for file in files_in(config.state_dir) if file.name.startswith(".master-")]


async def test_a_changed_data_key_is_named(config: Config):
    async with open_store(config) as store, store.database.writing() as connection:
        await connection.execute(text("UPDATE vault_keys SET wrapped = :short"), {"short": b"\0"})
    with pytest.raises(ConfigError, match="does not belong to this database"):
        async with open_store(config):
            pass


async def test_a_lost_master_key_is_not_replaced(config: Config):
    async with open_store(config):
        pass
    (config.state_dir / "master.key").unlink()
    with pytest.raises(ConfigError, match="master key of this database is missing"):
        async with open_store(config):
            pass
    assert not (config.state_dir / "master.key").exists()


async def test_a_master_key_from_the_environment_needs_no_file(config: Config):
    from_environment = config.model_copy(update={"master_key": SecretStr("ab" * 32)})
    async with open_store(from_environment):
        assert not (config.state_dir / "master.key").exists()


@pytest.mark.parametrize("content", ["", "not hex", "ab" * 31], ids=["empty", "words", "short"])
async def test_an_unusable_master_key_is_refused(config: Config, content: str):
    config.state_dir.mkdir(parents=True)
    (config.state_dir / "master.key").write_text(content)
    with pytest.raises(ConfigError, match="64 hex digits"):
        async with open_store(config):
            pass
