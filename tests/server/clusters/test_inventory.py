"""What a cluster holds: shared, renewed when it must be, never silently old."""

import asyncio

import anyio
import pytest

import proxmox_client.api.cluster
from proxmox_client import DeadlineExceeded, Unreachable, deadline
from proxmox_client.emulator import FaultKind
from pvemcp_server.access.model import Resources

pytestmark = pytest.mark.anyio


@pytest.fixture
def requests(monkeypatch) -> list[str]:
    """The requests for resources that leave."""
    seen: list[str] = []
    resources = proxmox_client.api.cluster.ClusterApi.resources

    async def counted(cluster, *arguments):
        seen.append("GET /cluster/resources")
        return await resources(cluster, *arguments)

    monkeypatch.setattr(proxmox_client.api.cluster.ClusterApi, "resources", counted)
    return seen


async def test_many_who_ask_at_once_share_one_request(requests, inventory):
    found = await asyncio.gather(*(inventory.view() for _ in range(20)))
    assert len(requests) == 1
    assert {id(one) for one in found} == {id(found[0])}
    assert len(found[0].guests) == 6


async def test_a_change_made_through_us_is_seen_by_the_next_reader(pve, inventory):
    before = await inventory.view()
    guest = before.guests[0]
    calls = pve.qemu if guest.type == "qemu" else pve.lxc
    task = await calls(guest.node, guest.vmid).create_snapshot("before")
    await task.wait()
    inventory.invalidate()
    assert await inventory.view() is not before


async def test_a_request_that_left_before_a_change_does_not_count_as_seeing_it(requests, inventory):
    early = asyncio.create_task(inventory.view())
    await asyncio.sleep(0)
    inventory.invalidate()
    late = await inventory.view()
    assert len(requests) == 2
    assert late.taken > (await early).taken


async def test_a_silent_cluster_is_answered_with_what_it_said_last_and_why(lab, pve, inventory):
    before = await inventory.view()
    inventory.invalidate()
    for node in list(lab.state.nodes):
        await lab.node_down(node)
    with anyio.fail_after(30):
        after = await inventory.view()
    assert after.guests == before.guests
    assert "refused" in after.stale.lower() or "connect" in after.stale.lower()


async def test_a_cluster_that_hangs_is_waited_for_once_not_by_everybody(lab, requests, inventory):
    await inventory.view()
    inventory.short_patience, inventory.quiet = 0.2, 3600.0
    inventory.invalidate()
    requests.clear()
    lab.fault(FaultKind.HANG)
    with anyio.fail_after(5):
        found = [await inventory.view() for _ in range(5)]
    assert all("did not answer within 0.2 s" in one.stale for one in found)
    assert len(requests) == 1


async def test_a_cluster_that_hung_the_last_time_is_only_glanced_at(lab, requests, inventory):
    inventory.patience, inventory.quiet, inventory.glance = 0.2, 0.0, 0.01
    lab.fault(FaultKind.HANG)
    with pytest.raises(DeadlineExceeded, match=r"did not answer within 0\.2 s"):
        await inventory.view()
    inventory.patience = inventory.short_patience = 3600.0
    with anyio.fail_after(5):
        for _ in range(3):
            with pytest.raises(DeadlineExceeded, match=r"did not answer within 0\.2 s"):
                await inventory.view()
    assert len(requests) == 1


async def test_a_cluster_that_is_back_is_believed_again(lab, inventory):
    nodes = list(lab.state.nodes)
    inventory.quiet, inventory.glance = 0.0, 30.0
    for node in nodes:
        await lab.node_down(node)
    with pytest.raises(Unreachable):
        await inventory.view()
    for node in nodes:
        await lab.node_up(node)
    assert not (await inventory.view()).stale


async def test_a_cluster_that_never_answered_is_an_error_not_an_empty_list(lab, inventory):
    for node in list(lab.state.nodes):
        await lab.node_down(node)
    with anyio.fail_after(30), pytest.raises(proxmox_client.Unreachable):
        await inventory.view()


async def test_a_refused_sign_in_is_told_and_not_covered_by_old_rows(lab, inventory):
    await inventory.view()
    inventory.invalidate()
    lab.fault(FaultKind.UNAUTHENTICATED)
    with anyio.fail_after(30), pytest.raises(proxmox_client.Unauthenticated):
        await inventory.view()


async def test_the_deadline_of_the_first_who_asks_does_not_cut_the_others_short(lab, inventory):
    lab.fault(FaultKind.SLOW, seconds=60.0, times=1)  # 0.3 s at this clock's pace

    async def hurried() -> None:
        with deadline(0.05):
            async with asyncio.timeout(0.05):
                await inventory.view()

    with anyio.fail_after(10):
        first = asyncio.create_task(hurried())
        await asyncio.sleep(0)
        found = await inventory.view()
        with pytest.raises(TimeoutError):
            await first
    assert len(found.guests) == 6


async def test_a_snapshot_within_a_scope_holds_nothing_else(inventory):
    whole = await inventory.view()
    vmid, node = whole.guests[0].vmid, whole.nodes[0].node
    part = whole.within(Resources(vmids=frozenset({vmid})))
    assert [guest.vmid for guest in part.guests] == [vmid]
    assert (part.nodes, part.storages, part.pools) == ((), (), ())
    by_node = whole.within(Resources(nodes=frozenset({node})))
    assert {guest.node for guest in by_node.guests} <= {node}
    assert [one.node for one in by_node.nodes] == [node]
    assert by_node.storages
