"""Writes that can be undone: the last ones of each key, for every process."""

from datetime import timedelta

import pytest
from sqlalchemy import update

from pvemcp_server.pipeline.undo_log import StoredUndos
from pvemcp_server.store import Store, records
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.undo_repository import KEPT, KEPT_OF_KEY
from pvemcp_server.toolkit.next_call import NextCall
from pvemcp_server.toolkit.undo import LeftState, Undo

pytestmark = pytest.mark.anyio


def undo_of(vmid: int) -> Undo:
    call = NextCall("MigrateVm", {"vmids": [vmid], "target_node": "pve01"})
    return Undo(call, {vmid: LeftState(node="pve02", options={"memory": "2048", "tags": None})})


async def test_another_process_reads_what_one_kept(store: Store, other_store: Store):
    one, other = StoredUndos(store.undos), StoredUndos(other_store.undos)
    for vmid in (101, 102):
        await one.add("key-a", "prod", f"Move {vmid}.", [vmid], undo_of(vmid))
    await one.add("key-b", "lab", "Move 103.", [103], undo_of(103))
    last = await other.last("key-a", None, None)
    assert last is not None
    assert (last.cluster, last.done, last.undo) == ("prod", "Move 102.", undo_of(102))
    first = await other.last("key-a", "prod", 101)
    assert first is not None
    assert first.undo == undo_of(101)
    assert await other.last("key-a", "lab", None) is None
    await one.add("key-a", "prod", "Grow a disk of 101.", [101], None)
    newest = await other.last("key-a", None, 101)
    assert newest is not None
    assert (newest.done, newest.newer) == ("Move 101.", "Grow a disk of 101.")
    assert await other.last("key-a", None, 102) == last
    assert await other.last("key-a", "prod", 105) is None
    await other.remove(last)
    assert await one.last("key-a", None, 101) == newest


async def test_old_ones_and_those_beyond_the_newest_are_deleted(store: Store):
    undos = StoredUndos(store.undos)
    await undos.add("other", "prod", "old", [1], undo_of(1))
    old = utc_now() - KEPT - timedelta(seconds=1)
    async with store.database.writing() as connection:
        await connection.execute(update(records.undos).values(created=old))
    assert await undos.last("other", None, None) is None
    for number in range(KEPT_OF_KEY + 2):
        await undos.add("key", "prod", str(number), [number], undo_of(number))
    assert [row.done for row in await store.undos.all()] == [
        str(number) for number in range(2, KEPT_OF_KEY + 2)
    ]
