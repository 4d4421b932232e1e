"""Rotation renews the root of derived keys, while other processes run on the same database."""

import ast
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from uuid import UUID

import pytest
from mcp.server.request_state import InvalidRequestState
from pyotp import TOTP
from sqlalchemy import LargeBinary, func, select, text

import pvemcp_server
from pvemcp_server.access import Access, open_access
from pvemcp_server.access.second_factors import new_totp_secret
from pvemcp_server.audit import Audit, AuditGuard, Event
from pvemcp_server.config import Config
from pvemcp_server.mcp.server import RequestStateCodec
from pvemcp_server.mcp.session_ids import SessionIds
from pvemcp_server.store import Store, audit_chain, audit_log, open_store, records
from pvemcp_server.store.records import TlsMode
from pvemcp_server.store.vault import ID_BYTES

pytestmark = pytest.mark.anyio

SOURCES = Path(pvemcp_server.__file__).parent
MAKING = ("__init__", "__post_init__")


def test_no_derived_key_is_kept():
    """Find keys that are derived while an object is made: a rotation would not reach them."""
    kept = []
    for path in SOURCES.rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef) and function.name in MAKING:
                kept += [f"{path.name}:{call.lineno}" for call in derivations(function)]
    assert kept == []


def derivations(node: ast.AST) -> Iterator[ast.Call]:
    """Yield the calls of `derive` that run with the function, not later as a lambda does."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Lambda | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        called = child.func if isinstance(child, ast.Call) else None
        if isinstance(called, ast.Attribute) and called.attr == "derive":
            yield child
        yield from derivations(child)


async def test_a_session_id_is_opened_with_the_newest_key(store: Store, other_store: Store):
    mine, theirs = (
        SessionIds(partial(each.vault.derive, "mcp session ids")) for each in (store, other_store)
    )
    old = mine.seal({"protocolVersion": "2025-11-25"}, "key")
    await store.vault.rotate()
    await other_store.watch.poll()
    assert theirs.open(old, "key") is None
    new = theirs.seal({"protocolVersion": "2025-11-25"}, "key")
    assert mine.open(new, "key")["protocolVersion"] == "2025-11-25"


async def test_every_purpose_gets_a_new_key_in_every_process(store: Store, other_store: Store):
    await other_store.watch.poll()
    before = store.vault.derive("anything")
    assert other_store.vault.derive("anything") == before
    await store.vault.rotate()
    await other_store.watch.poll()
    after = store.vault.derive("anything")
    assert after != before
    assert other_store.vault.derive("anything") == after


async def test_the_chain_goes_on_over_rotations_by_several_processes(
    store: Store, other_store: Store, config: Config
):
    audits = Audit(store), Audit(other_store)
    for rotating in (store, other_store, store):
        for audit in audits:  # also the process that has not learned of the rotation yet
            await audit.intent(Event(tool="BackupVm"))
        await rotating.vault.rotate()
    for audit in audits:
        await audit.intent(Event(tool="ListVms"))
        assert await audit.verify() == []
    roots = {row["root"] for row in await store.audit_log.rows_after(0, 100)}
    assert len(roots) == 4
    await AuditGuard(store).note_head()
    async with open_store(config) as later:
        assert later.audit_head.read() == await Audit(later).head()
        assert await Audit(later).verify() == []


async def test_retention_verifies_over_a_rotation(store: Store):
    audit = Audit(store)
    await audit.intent(Event(tool="old"))
    await audit.prune(-1)
    await store.vault.rotate()
    await audit.intent(Event(tool="new"))
    assert await audit.verify() == []
    await audit.prune(-1)
    assert await audit.verify() == []


async def test_an_old_root_continues_and_rewrites_nothing(store: Store):
    """Play an attacker who writes to the database and knows the root from before the rotation."""
    audit = Audit(store)
    await audit.intent(Event(tool="BackupVm"))
    old, key = store.vault.root, store.vault.derive("audit")
    await store.vault.rotate()
    await audit.intent(Event(tool="DeleteVm"))
    row = dict((await store.audit_log.rows_after(1, 1))[0])
    row |= {"tool": "ListVms", "root": old}
    forged = audit_chain.hash_of(key, row["previous"], row)
    mark = audit_chain.Mark(2, forged)
    seal = audit_chain.seal_of(key, audit_chain.HEAD, mark)
    async with store.database.writing() as connection:
        values = {"forged": forged, "old": old, "seal": seal}
        statement = "UPDATE audit SET tool = 'ListVms', root = :old, hash = :forged WHERE seq = 2"
        await connection.execute(text(statement), values)
        statement = "UPDATE audit_marks SET hash = :forged, root = :old, seal = :seal"
        await connection.execute(text(f"{statement} WHERE name = 'head'"), values)
    assert "the mark of its end was changed" in [each.fact for each in await audit.verify()]
    await audit.intent(Event(tool="ListVms"))
    assert audit_log.MARK_CHANGED in [each.fact for each in await audit.verify()]


async def test_a_changed_mark_is_not_sealed_again_by_a_rotation(store: Store):
    audit = Audit(store)
    await audit.intent(Event(tool="BackupVm"))
    async with store.database.writing() as connection:
        await connection.execute(text("DELETE FROM audit"))
        await connection.execute(text("UPDATE audit_marks SET seq = 0, hash = ''"))
    await store.vault.rotate()
    assert "the mark of its end was changed" in [each.fact for each in await audit.verify()]


async def test_sessions_end_and_new_ones_work_in_every_process(
    access: Access, store: Store, other_store: Store
):
    await access.admins.create("ada", "correct horse battery", must_change=False)
    ada = await access.admins.get("ada")
    token = await access.sessions.open(ada, address="::1", agent="")
    device = access.admins.devices.issue("ada")
    async with open_access(other_store) as other:
        await other_store.watch.poll()
        assert await other.sessions.find(token)
        await store.vault.rotate()
        await other_store.watch.poll()
        for each in (access, other):
            assert await each.sessions.find(token) is None
            assert await each.sessions.of(ada) == []
            assert each.admins.devices.find("ada", device) is None
        token = await access.sessions.open(ada, address="::1", agent="")
        first, second = await access.sessions.find(token), await other.sessions.find(token)
        assert first is not None
        assert second is not None
        assert first.csrf == second.csrf


async def test_service_tokens_stay_valid_in_every_process(
    access: Access, store: Store, other_store: Store
):
    _, before = await access.service_tokens.create("before", ["keys:read"], by="ada")
    await store.vault.rotate()
    record, after = await access.service_tokens.create("after", ["keys:read"], by="ada")
    assert record.pepper == store.vault.pepper.id
    async with open_access(other_store) as other:  # has not learned of the rotation yet
        for each in (access, other):
            for secret in (before, after):
                assert await each.service_tokens.authenticate(secret, "::1")


ENCRYPTED = {("identities", "secret"), ("second_factors", "secret"), ("webhooks", "sealed")}
KEPT = {
    ("keys", "digest"),
    ("service_tokens", "digest"),
    ("tokens", "digest"),
    ("vault_keys", "wrapped"),
}
ENDED = {("person_sessions", "sealed"), ("inventories", "sealed")}


@pytest.mark.parametrize("master", [None, secrets.token_bytes(32)], ids=["rotate", "master"])
async def test_every_encrypted_column_gets_the_new_key(
    access: Access, store: Store, master: bytes | None
):
    binary = {
        (table.name, column.name)
        for table in records.metadata.tables.values()
        for column in table.columns
        if isinstance(column.type, LargeBinary)
    }
    assert binary == ENCRYPTED | KEPT | ENDED
    token = {"token_id": "bot@pve!pvemcp", "secret": str(UUID(int=1))}
    await access.clusters.create("prod", ["pve"], tls_mode=TlsMode.INSECURE, **token)
    ada = await access.admins.create("ada", "correct horse battery")
    secret = new_totp_secret()
    await access.second_factors.add_totp(ada, "phone", secret, TOTP(secret).now())
    webhook = await store.webhooks.replace("https://hook", "https://hook/path", "signs")
    expires = datetime(2100, 1, 1, tzinfo=UTC)
    await store.person_sessions.open("digest", subject="admin:1", expires=expires, values={})
    (identity,) = await store.identities.all()
    published = {"identity_id": identity.id, "taken": 0.0, "sealed": b"before"}
    async with store.database.writing() as connection:
        await connection.execute(records.inventories.insert().values(published))
        before = await connection.scalar(select(func.max(records.vault_keys.c.id)))
    await (store.vault.rotate() if master is None else store.vault.change_master(master))
    for table, column in ENCRYPTED:
        async with store.database.reading() as connection:
            query = select(records.metadata.tables[table].c[column])
            [value] = (await connection.execute(query)).scalars()
        assert int.from_bytes(value[:ID_BYTES], "big") > before, table
    assert await store.webhooks.opened(webhook) == ("https://hook/path", "signs")
    assert await store.person_sessions.all() == []
    async with store.database.reading() as connection:
        assert not (await connection.execute(select(records.inventories))).all()


async def test_state_of_a_question_is_sealed_with_the_key_of_the_time():
    keys = [secrets.token_bytes(32)]
    codec = RequestStateCodec(lambda: keys[-1])
    token = codec.seal(b"state")
    assert codec.unseal(token) == b"state"
    keys.append(secrets.token_bytes(32))
    with pytest.raises(InvalidRequestState, match="unknown key"):
        codec.unseal(token)
    assert codec.unseal(codec.seal(b"state")) == b"state"
