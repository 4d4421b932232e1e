"""Asking many of one cluster: what is hidden from the caller is not named in a note."""

from dataclasses import replace
from time import monotonic

import anyio
import pytest

from proxmox_client import DeadlineExceeded, Unreachable
from proxmox_client.deadlines import remaining
from pvemcp_server.tables import fanout
from pvemcp_server.tables.registry import Budget, LoadRequest

pytestmark = pytest.mark.anyio


async def refuse(key):
    raise Unreachable(str(key), "on fire")


async def asked_quietly(cluster, keys, visible):
    return await fanout.quietly(
        cluster,
        keys,
        visible,
        lambda view, some: fanout.each(view, some, refuse, LoadRequest(), "content of storage"),
    )


async def test_a_storage_that_is_not_granted_is_not_named_when_it_fails(reach):
    cluster = reach()
    assert await asked_quietly(cluster, ["secret-nfs"], lambda _: False) == {}
    assert list(cluster.notes) == ["A part of prod did not answer; rows may be missing."]


async def test_a_storage_that_is_granted_is_named_when_it_fails(reach):
    cluster = reach()
    await asked_quietly(cluster, ["nfs", "secret-nfs"], "nfs".__eq__)
    said = " ".join(cluster.notes)
    assert "Missing from prod: content of storage nfs. " in said
    assert "secret" not in said


async def test_many_failures_of_one_kind_are_told_in_a_few_lines(reach):
    cluster = reach()
    await fanout.each(cluster, range(100, 400), refuse, LoadRequest(), "configuration of guest")
    assert len(list(cluster.notes)) == 4


async def test_a_cluster_that_fell_silent_is_not_waited_for_key_by_key(reach):
    known = reach()
    trouble = Unreachable("prod", "on fire")
    inventory = replace(known.inventory, short_timeout=0.5, _failure=trouble)

    async def ask(_key):
        return remaining()

    assert await fanout.each(known, [1], ask, LoadRequest(), "guest") == {1: None}
    found = await fanout.each(replace(known, inventory=inventory), [1], ask, LoadRequest(), "guest")
    assert found[1] <= 0.5


async def test_no_key_waits_for_one_that_hangs(reach):
    last = anyio.Event()

    async def ask(key):
        if key == 0:
            await last.wait()
        if key == 299:
            last.set()
        return key

    with anyio.fail_after(5):
        found = await fanout.each(reach(), range(300), ask, LoadRequest(), "configuration of guest")
    assert list(found) == list(range(300))


async def test_what_did_not_come_in_time_is_said_with_what_to_do(reach):
    cluster = reach()
    want = LoadRequest(budget=Budget(until=monotonic() + 0.05))

    async def ask(key):
        while monotonic() < want.budget.until:
            await anyio.lowlevel.checkpoint()
        raise DeadlineExceeded("too late")

    await fanout.each(cluster, range(5), ask, want, "configuration of guest")
    assert any(
        "5 of 5 configuration of guests of prod did not come in time" in one
        for one in cluster.notes
    )


async def test_an_error_of_ours_is_not_taken_for_one_of_proxmox(reach):
    async def fail(key):
        raise ZeroDivisionError(key)

    with pytest.raises(ZeroDivisionError):
        await fanout.each(reach(), [1], fail, LoadRequest(), "guest")
