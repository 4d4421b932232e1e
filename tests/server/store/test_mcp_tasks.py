"""Tasks that clients poll: bounded for each holder of keys, and removed when they expire."""

from datetime import datetime, timedelta

import pytest
from tests.server.oauth.connected import connect

from pvemcp_server.store import Store, mcp_task_repository
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.records import McpTask

pytestmark = pytest.mark.anyio


async def keep(store: Store, holder: str, key_id: str, name: str, created: datetime) -> McpTask:
    values = {"cluster": "prod", "tool": "BackupVm", "upid": None, "status": "working"}
    return await store.mcp_tasks.keep(
        holder,
        id=name,
        key_id=key_id,
        message="",
        result=None,
        created=created,
        changed=created,
        expires=created + timedelta(hours=1),
        **values,
    )


async def test_the_newest_tasks_of_all_connections_of_a_user_are_kept(store, monkeypatch):
    monkeypatch.setattr(mcp_task_repository, "MOST_KEPT", 3)
    subject, now = "cluster:1:alice@pve", utc_now()
    keys = [(await connect(store, subject=subject, name=name)).id for name in ("one", "two")]
    bob = await connect(store, subject="cluster:1:bob@pve", name="three")
    await keep(store, bob.subject, bob.id, "of bob", now - timedelta(minutes=30))
    await keep(store, "akey", "akey", "of a key", now - timedelta(minutes=30))
    for number in range(5):
        created = now - timedelta(minutes=20 - number)
        await keep(store, subject, keys[number % 2], f"task {number}", created)
    kept = sorted(task.id for task in await store.mcp_tasks.all())
    assert kept == ["of a key", "of bob", "task 2", "task 3", "task 4"]


async def test_expired_tasks_are_removed_also_of_keys_that_are_gone(store):
    now = utc_now()
    await keep(store, "gone", "gone", "expired", now - timedelta(hours=2))
    await keep(store, "akey", "akey", "new", now)
    assert [task.id for task in await store.mcp_tasks.all()] == ["new"]
