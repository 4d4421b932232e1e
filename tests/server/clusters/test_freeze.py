"""A freeze stops every write to Proxmox in the client, whatever sends it."""

import pytest

from pvemcp_server.access.freezes import Freezes
from pvemcp_server.access.model import EVERYTHING
from pvemcp_server.clusters import Notes
from pvemcp_server.errors import Frozen, Precondition, UnknownName

pytestmark = pytest.mark.anyio

WRITES = {
    "POST": "/nodes/pve01/qemu/100/status/start",
    "PUT": "/nodes/pve01/qemu/100/config",
    "DELETE": "/nodes/pve01/qemu/100",
}


@pytest.mark.parametrize("name", ["lab", None])
async def test_no_write_leaves_while_its_cluster_is_frozen(
    clusters, access, store, other_store, new_token, name
):
    token_id, secret = new_token("narrow")
    await access.clusters.add_identity("lab", "narrow", token_id=token_id, secret=secret)
    bound = (await access.clusters.identity("lab", "narrow")).id
    opened = [await clusters.open("lab", by, EVERYTHING, Notes()) for by in ({}, {"lab": bound})]
    assert [await cluster.read_freeze() for cluster in opened] == [None, None]
    sent = []

    async def count(*arguments, **options):
        sent.append(arguments[0])
        raise ConnectionError

    for cluster in opened:
        cluster.pve._pool.send = count
    await Freezes(other_store).start(name, reason="because", by="ada")  # in another process
    await store.watch.poll()
    for cluster in opened:
        for method, path in WRITES.items():
            with pytest.raises(Frozen, match=r"by ada: because\. This was not sent"):
                await cluster.pve.transport.request_data(method, path)
        with pytest.raises(ConnectionError):
            await cluster.pve.version()
    assert sent == ["GET", "GET"]
    frozen = await clusters.open("lab", {}, EVERYTHING, Notes())
    assert str(await frozen.read_freeze()).endswith("by ada: because")
    await clusters.freezes.end(name)
    await store.watch.poll()
    with pytest.raises(ConnectionError):
        await frozen.pve.transport.request_data("POST", WRITES["POST"])


async def test_a_freeze_holds_for_its_cluster_under_any_name(clusters, access, store):
    opened = await clusters.open("lab", {}, EVERYTHING, Notes())
    await clusters.freezes.start("lab", reason="", by="ada")
    await access.clusters.change("lab", name="prod")
    await store.watch.poll()
    assert [freeze.cluster for freeze in await clusters.freezes.all()] == ["prod"]
    with pytest.raises(Frozen):  # a call that began before
        await opened.pve.transport.request_data("POST", WRITES["POST"])
    assert await clusters.freezes.of("lab") is None
    with pytest.raises(UnknownName):
        await clusters.freezes.start("lab", reason="", by="ada")


async def test_the_end_of_one_freeze_leaves_the_other(clusters, store):
    for name in ("lab", None):
        with pytest.raises(Precondition):
            await clusters.freezes.end(name)
        await clusters.freezes.start(name, reason="", by="ada")
    await clusters.freezes.end(None)
    await store.watch.poll()
    assert (await clusters.freezes.of("lab")).cluster == "lab"
    assert await clusters.freezes.of("other") is None


async def test_a_removed_cluster_takes_its_freeze_along(clusters, access, store):
    await clusters.freezes.start("lab", reason="", by="ada")
    await access.clusters.remove("lab")
    await store.watch.poll()
    assert await clusters.freezes.all() == await store.freezes.all() == []


async def test_no_write_is_sent_while_the_database_does_not_answer(clusters, store, monkeypatch):
    opened = await clusters.open("lab", {}, EVERYTHING, Notes())

    async def fail():
        raise OSError("gone")

    monkeypatch.setattr(store.watch, "_versions", fail)
    store.watch._polled = float("-inf")
    with pytest.raises(Frozen, match="not known"):
        await opened.pve.transport.request_data("POST", WRITES["POST"])
