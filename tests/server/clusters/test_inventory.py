"""The inventory: shared, refreshed when needed, and never stale without saying so."""

import asyncio
import time
from contextlib import aclosing

import anyio
import httpx2 as httpx
import pytest

import proxmox_client.api.cluster
from proxmox_client import (
    ApiToken,
    Client,
    DeadlineExceeded,
    Delayed,
    Limits,
    SocketBudget,
    Tls,
    Unreachable,
    deadline,
)
from proxmox_client.emulator import FaultKind
from proxmox_client.limits import remaining
from pvemcp_server.access.model import Resources
from pvemcp_server.clusters import Cluster, Inventory, Notes

pytestmark = pytest.mark.anyio


async def test_concurrent_callers_share_one_request(requests, inventory):
    views = await asyncio.gather(*(inventory.view() for _ in range(20)))
    assert len(requests) == 1
    assert {id(view) for view in views} == {id(views[0])}
    assert len(views[0].guests) == 6


async def test_a_write_is_visible_to_the_next_reader(pve, inventory):
    before = await inventory.view()
    guest = before.guests[0]
    calls = pve.qemu if guest.type == "qemu" else pve.lxc
    task = await calls(guest.node, guest.vmid).create_snapshot("before")
    await task.wait()
    inventory.invalidate()
    assert await inventory.view() is not before


async def test_a_request_sent_before_a_write_is_not_current(requests, inventory):
    early = asyncio.create_task(inventory.view())
    await asyncio.sleep(0)
    inventory.invalidate()
    late = await inventory.view()
    assert len(requests) == 2
    assert late.taken > (await early).taken


async def test_an_unreachable_cluster_returns_the_last_view_as_stale(lab, pve, inventory):
    before = await inventory.view()
    inventory.invalidate()
    for node in list(lab.state.nodes):
        await lab.node_down(node)
    with anyio.fail_after(30):
        after = await inventory.view()
    assert after.guests == before.guests
    assert "refused" in after.stale.lower() or "connect" in after.stale.lower()


async def test_only_one_call_waits_for_a_hanging_cluster(lab, requests, inventory):
    await inventory.view()
    inventory.short_timeout, inventory.retry_after = 0.2, 3600.0
    inventory.invalidate()
    requests.clear()
    lab.fault(FaultKind.HANG)
    with anyio.fail_after(5):
        views = [await inventory.view() for _ in range(5)]
    assert all("did not answer within 0.2 s" in view.stale for view in views)
    assert len(requests) == 1


async def test_a_retry_after_a_timeout_waits_briefly(lab, requests, inventory):
    inventory.timeout, inventory.retry_after, inventory.retry_timeout = 0.2, 0.0, 0.01
    lab.fault(FaultKind.HANG)
    with pytest.raises(DeadlineExceeded, match=r"did not answer within 0\.2 s"):
        await inventory.view()
    inventory.timeout = inventory.short_timeout = 3600.0
    with anyio.fail_after(5):
        for _ in range(3):
            with pytest.raises(DeadlineExceeded, match=r"did not answer within 0\.2 s"):
                await inventory.view()
    assert len(requests) == 1


async def test_a_cluster_that_answers_again_is_current(lab, inventory):
    nodes = list(lab.state.nodes)
    inventory.retry_after, inventory.retry_timeout = 0.0, 30.0
    for node in nodes:
        await lab.node_down(node)
    with pytest.raises(Unreachable):
        await inventory.view()
    for node in nodes:
        await lab.node_up(node)
    assert not (await inventory.view()).stale


async def test_a_cluster_that_never_answered_raises_an_error(lab, inventory):
    for node in list(lab.state.nodes):
        await lab.node_down(node)
    with anyio.fail_after(30), pytest.raises(proxmox_client.Unreachable):
        await inventory.view()


async def test_failed_authentication_is_raised_instead_of_a_stale_view(lab, inventory):
    await inventory.view()
    inventory.invalidate()
    lab.fault(FaultKind.UNAUTHENTICATED)
    with anyio.fail_after(30), pytest.raises(proxmox_client.Unauthenticated):
        await inventory.view()


async def test_the_deadline_of_the_first_caller_does_not_affect_others(lab, inventory):
    lab.fault(FaultKind.SLOW, seconds=60.0, times=1)  # 0.3 s at this clock's pace

    async def hurried() -> None:
        with deadline(0.05):
            async with asyncio.timeout(0.05):
                await inventory.view()

    with anyio.fail_after(10):
        first = asyncio.create_task(hurried())
        await asyncio.sleep(0)
        view = await inventory.view()
        with pytest.raises(TimeoutError):
            await first
    assert len(view.guests) == 6


class Split(httpx.AsyncBaseTransport):
    """Hosts a and c of the nodes a, b and c: a sees itself only, and c all but a."""

    def __init__(self):
        self.asked, self.statuses = [], 200

    async def handle_async_request(self, request):
        host, path = request.url.host, request.url.path.removeprefix("/api2/json/cluster/")
        self.asked.append(f"{host} {path}")
        members = "a" if host == "a" else "bc"
        if path == "status":
            rows = [{"type": "cluster", "name": "lab", "quorate": int(host == "c")}]
            rows += [{"type": "node", "name": n, "online": int(n in members)} for n in "abc"]
            return httpx.Response(self.statuses, json={"data": rows})
        rows = [
            {"type": "node", "id": n, "node": n, "status": "online" if n in members else "offline"}
            for n in "abc"
        ]
        return httpx.Response(200, json={"data": rows})


@pytest.fixture
async def split():
    transport = Split()
    async with (
        Client(["a", "c"], ApiToken("a@pve!b", "c"), http_transport=transport) as pve,
        aclosing(Inventory(pve, lambda: 0.0)) as inventory,
    ):
        yield transport, inventory


async def test_an_inventory_of_a_partition_without_quorum_is_read_of_the_other(split):
    transport, inventory = split
    assert (await inventory.view()).offline_nodes == {"a"}
    assert transport.asked == ["a resources", "a status", "c status", "c resources"]
    transport.asked.clear()
    await inventory.view()
    assert transport.asked == ["c resources"]


async def test_a_host_with_quorum_is_searched_for_once_a_minute(split):
    transport, inventory = split
    transport.statuses = 403
    for _ in range(3):
        assert (await inventory.view()).offline_nodes == {"b", "c"}
    assert transport.asked == ["a resources", "a status", "a resources", "a resources"]


async def test_a_view_within_a_scope_contains_nothing_else(inventory):
    whole = await inventory.view()
    vmid, node = whole.guests[0].vmid, whole.nodes[0].node
    part = whole.within(Resources(vmids=frozenset({vmid})))
    assert [guest.vmid for guest in part.guests] == [vmid]
    assert (part.nodes, part.storages, part.pools) == ((), (), ())
    by_node = whole.within(Resources(nodes=frozenset({node})))
    assert {guest.node for guest in by_node.guests} <= {node}
    assert [resource.node for resource in by_node.nodes] == [node]
    assert by_node.storages


async def test_a_cluster_that_was_not_asked_is_not_called_silent(lab):
    budget, tls = SocketBudget(1), Tls(fingerprints=lab.fingerprints.values())
    async with Client(lab.hosts, ApiToken(*lab.token), tls=tls, sockets=budget) as client:
        inventory = Inventory(client, lambda: 0.0, timeout=0.02, short_timeout=0.02)
        await budget.take()  # by another cluster
        with pytest.raises(DeadlineExceeded, match="all sockets of this server are in"):
            await inventory.view()
        assert inventory.failure is None
        await budget.give_back(1)
        inventory.timeout = 10.0
        assert (await inventory.view()).guests
        await inventory.aclose()


async def test_a_cluster_that_answers_other_requests_is_not_called_silent(lab, pve, inventory):
    await inventory.view()
    inventory.short_timeout = 0.2
    inventory.invalidate()
    lab.fault(FaultKind.HANG, path="/cluster/resources")
    waiting = asyncio.create_task(inventory.view())
    await asyncio.sleep(0)  # the inventory is asked first
    await pve.version()
    view = await waiting
    assert view.is_delayed
    assert view.stale.endswith("within 0.2 s: it answers other requests of this server")
    everything = Resources(everything=True)
    cluster = Cluster("lab", "", pve, "", inventory, everything, Notes())
    await cluster.inventory_view()
    assert not any("does not answer" in note for note in cluster.notes)
    with cluster.short_deadline():
        assert remaining() is None  # its other reads get their full time


async def test_a_cluster_whose_slots_are_in_use_is_not_called_silent(lab):
    tls, limits = Tls(fingerprints=lab.fingerprints.values()), Limits(per_cluster=1)
    async with Client(lab.hosts, ApiToken(*lab.token), tls=tls, limits=limits) as client:
        inventory = Inventory(client, lambda: 0.0, timeout=0.02)
        async with client.transport.pool.limiter.slot(""):
            with pytest.raises(Delayed, match="earlier requests to it have no answer"):
                await inventory.view()
            assert inventory.failure is None
            with deadline(0.02), pytest.raises(Delayed, match="GET /version was not sent in time"):
                await client.version()
        await inventory.aclose()


async def test_an_answer_that_waits_for_a_busy_process_is_not_late(requests, inventory):
    inventory.timeout = 0.2
    view = asyncio.create_task(inventory.view())
    with anyio.fail_after(5):
        while not requests:  # noqa: ASYNC110 - of another task
            await asyncio.sleep(0)
    time.sleep(0.5)  # noqa: ASYNC251 - the process is busy for longer than the timeout
    assert (await view).guests
