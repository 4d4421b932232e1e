"""Asking many of one cluster: what is hidden from the caller is not named in a note."""

import pytest

from proxmox_client import Unreachable
from pvemcp_server.tables import fanout
from pvemcp_server.tables.registry import Want

pytestmark = pytest.mark.anyio


async def refuse(key):
    raise Unreachable(str(key), "on fire")


async def asked_quietly(cluster, keys, visible):
    return await fanout.quietly(
        cluster,
        keys,
        visible,
        lambda view, some: fanout.each(view, some, refuse, Want(), "content of storage"),
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
    await fanout.each(cluster, range(100, 400), refuse, Want(), "configuration of guest")
    assert len(list(cluster.notes)) == 4


async def test_an_error_of_ours_is_not_taken_for_one_of_proxmox(reach):
    async def fail(key):
        raise ZeroDivisionError(key)

    with pytest.raises(ZeroDivisionError):
        await fanout.each(reach(), [1], fail, Want(), "guest")
