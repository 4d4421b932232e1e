"""The history in the store: one reading per interval, bounded, bound to identity and account."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pvemcp_server.store.history_repository import History
from pvemcp_server.store.records import TlsMode

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
MINUTES = timedelta(minutes=5)


@pytest.fixture
async def identity(store, access):
    await access.clusters.create(
        "lab", ["192.0.2.1"], token_id="mcp@pve!one", secret="s", tls_mode=TlsMode.SYSTEM
    )
    return await store.identities.find()


def difference(at=NOW, text="memory: 1 → 2"):
    return {
        "at": at, "after": at - MINUTES, "kind": "config", "node": "pve1", "vmid": 101,
        "subject": "101", "option": "memory", "text": text,
    }  # fmt: skip


async def test_one_of_several_processes_gets_a_reading_that_is_due(store, other_store, identity):
    assert await store.history.claim(identity, NOW, MINUTES) == {}
    assert await other_store.history.claim(identity, NOW, MINUTES) is None
    await store.history.save(identity, {"at": 1}, [], NOW)
    later = NOW + MINUTES
    assert await other_store.history.claim(identity, later, MINUTES) == {"at": 1}
    assert await store.history.claim(identity, later, MINUTES) is None


async def test_a_clock_that_was_set_back_stops_no_readings(store, identity):
    assert await store.history.claim(identity, NOW, MINUTES) == {}
    back = NOW - timedelta(days=1)
    assert await store.history.claim(identity, back, MINUTES) == {}
    assert await store.history.claim(identity, back, MINUTES) is None


async def test_old_differences_are_deleted(store, identity):
    history = History(store.history, identity)
    assert await history.began() is None
    await store.history.claim(identity, NOW, MINUTES)
    old, new = difference(NOW - timedelta(days=31), "old"), difference(text="new")
    await store.history.save(identity, {}, [old, new], NOW - timedelta(days=30))
    assert await history.began() == NOW
    assert [entry.text for entry in await history.since(None)] == ["new"]
    assert await history.since(NOW + MINUTES) == []


async def test_another_account_begins_a_new_history(store, identity):
    await store.history.claim(identity, NOW, MINUTES)
    await store.history.save(identity, {"at": 1}, [difference()], NOW)
    other = replace(identity, token_id="mcp@pve!two")
    assert await History(store.history, other).since(None) == []
    assert await History(store.history, other).began() is None
    assert await store.history.claim(other, NOW, MINUTES) == {}
    assert await History(store.history, other).began() == NOW
    assert await store.history.all() == []


async def test_a_removed_identity_takes_its_history_with_it(store, identity):
    await store.history.claim(identity, NOW, MINUTES)
    await store.history.save(identity, {}, [difference()], NOW)
    assert await store.identities.remove(identity.id)
    assert await store.history.all() == []
