"""The client against injected faults: broken, hanging and wrong answers."""

import asyncio
from collections.abc import Callable

import anyio
import pytest

from proxmox_client import (
    ApiToken,
    Client,
    DeadlineExceeded,
    Forbidden,
    NodeUnreachable,
    NoQuorum,
    NotFound,
    Password,
    Tls,
    TlsError,
    Unauthenticated,
    Unreachable,
    deadline,
)

pytestmark = pytest.mark.anyio
START = "/nodes/pve2/qemu/107/status/start"


@pytest.fixture
def start_tasks(lab) -> Callable[[], list[str]]:
    """Provide a function that lists the start tasks of guest 107."""

    def list_tasks() -> list[str]:
        return [upid for upid in lab.state.tasks if ":qmstart:107:" in upid]

    return list_tasks


@pytest.mark.parametrize("kind", ["token", "password"])
async def test_a_write_with_a_lost_answer_is_carried_out_once(
    kind, lab, client_as, inject_fault, start_tasks
):
    # Quirk 2.
    auth = ApiToken(*lab.token) if kind == "token" else Password(*lab.password)
    client = client_as(auth)
    guest = await client.guest(107)
    with inject_fault("drop", method="POST", path=START) as fault, pytest.raises(Unreachable):
        await guest.power("start")
    assert (fault.hits, len(start_tasks())) == (1, 1)


async def test_a_write_without_an_answer_is_sent_once(client_as, inject_fault, start_tasks):
    client = client_as(read_timeout=0.3)
    guest = await client.guest(107)
    with inject_fault("hang", method="POST") as fault, pytest.raises(Unreachable):
        await guest.power("start")
    assert fault.hits == 1


async def test_a_write_answered_with_401_is_sent_once(lab, client_as, inject_fault, start_tasks):
    client = client_as(Password(*lab.password))
    guest = await client.guest(107)
    with inject_fault("unauthenticated", path=START) as fault, pytest.raises(Unauthenticated):
        await guest.power("start")
    assert (fault.hits, start_tasks()) == (1, [])


async def test_reads_survive_broken_answers(client, inject_fault):
    with inject_fault("drop", percent=3, path="/version") as fault:
        for _ in range(300):
            assert (await client.version()).release
    assert fault.hits > 0


async def test_reads_survive_closed_connections(client, lab):
    for number in range(30):
        await client.version()
        lab.drop_connections(f"pve{number % 3 + 1}")


async def test_the_cluster_stays_reachable_while_one_node_is_down(client, lab):
    # Quirks 3, 31 and 33.
    await client.version()
    await lab.node_down("pve1")
    assert (await client.version()).release
    with pytest.raises(NodeUnreachable) as caught:
        await client.node("pve1").status()
    assert caught.value.node == "pve1"
    assert (await client.node("pve2").status()).uptime > 0
    states = {node.node: node.status for node in await client.nodes()}
    assert states == {"pve1": "offline", "pve2": "online", "pve3": "online"}
    await lab.node_up("pve1")
    assert (await client.node("pve1").status()).uptime >= 0


async def test_an_unknown_node_is_not_found(client):
    # Quirk 31: Proxmox looks the name up in the DNS.
    with pytest.raises(NotFound, match="nope"):
        await client.node("nope").status()


@pytest.mark.parametrize(("kind", "status"), [("proxy-timeout", 596), ("proxy-redirects", 599)])
async def test_errors_between_nodes_name_the_node(kind, status, lab, client_as, inject_fault):
    # Quirk 3. With several hosts, the next one may reach the node, or be it.
    client = client_as(hosts=lab.hosts[:1])
    with inject_fault(kind, node="pve2"), pytest.raises(NodeUnreachable) as caught:
        await client.node("pve2").status()
    assert (caught.value.status, caught.value.node) == (status, "pve2")


async def test_without_quorum_reads_work_and_writes_fail(client, lab):
    # Quirk 32.
    lab.lose_quorum()
    assert len((await client.cluster.resources()).guests) == 12
    assert not (await client.cluster.status()).quorate
    with pytest.raises(NoQuorum):
        await client.raw("POST", "/pools", poolid="new")


async def test_nothing_is_sent_to_a_swapped_certificate(lab, inject_fault):
    # Quirk 6.
    requests = lab.fault("error", path="/")
    for node in lab.state.nodes:
        lab.swap_certificate(node)
    tls = Tls(fingerprints=lab.fingerprints.values())
    async with Client(lab.hosts, ApiToken(*lab.token), tls=tls) as client:
        with pytest.raises(TlsError, match="fingerprint"):
            await client.version()
    assert requests.hits == 0


async def test_the_ca_of_a_cluster_verifies_its_certificates(lab):
    # Quirk 5.
    tls = Tls(ca_pem=lab.ca_pem)
    async with Client(lab.hosts, ApiToken(*lab.token), tls=tls) as client:
        assert (await client.version()).release


async def test_a_hanging_call_stops_at_the_deadline(client, inject_fault):
    hanging = inject_fault("hang", path="/version")
    with anyio.fail_after(10), hanging, pytest.raises(DeadlineExceeded), deadline(0.2):
        await client.version()
    assert (await client.version()).release


async def test_cancelled_calls_free_their_slots(client, inject_fault):
    with inject_fault("hang", path="/version"):
        calls = [asyncio.create_task(client.version()) for _ in range(10)]
        await anyio.wait_all_tasks_blocked()
        for call in calls:
            call.cancel()
        assert len(await asyncio.gather(*calls, return_exceptions=True)) == 10
    with anyio.fail_after(10):
        assert (await client.version()).release


async def test_forbidden_names_the_missing_privilege(client, inject_fault):
    denied = inject_fault("forbidden", path="/nodes/pve1/status", message="/nodes/pve1, Sys.Audit")
    with denied, pytest.raises(Forbidden) as caught:
        await client.node("pve1").status()
    assert caught.value.privileges == ("Sys.Audit",)
