"""The client against an emulator that breaks, hangs, hides and lies."""

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
def started(lab) -> Callable[[], list[str]]:
    """Look which start tasks there are, however they came to be."""

    def look() -> list[str]:
        return [upid for upid in lab.state.tasks if ":qmstart:107:" in upid]

    return look


@pytest.mark.parametrize("kind", ["token", "password"])
async def test_a_write_whose_answer_is_lost_is_done_once(kind, lab, signed_in, faulty, started):
    """Quirk 2."""
    auth = ApiToken(*lab.token) if kind == "token" else Password(*lab.password)
    client = signed_in(auth)
    guest = await client.guest(107)
    with faulty("drop", method="POST", path=START) as fault, pytest.raises(Unreachable):
        await guest.power("start")
    assert (fault.hits, len(started())) == (1, 1)


async def test_a_write_that_is_never_answered_is_sent_once(signed_in, faulty, started):
    client = signed_in(read_timeout=0.3)
    guest = await client.guest(107)
    with faulty("hang", method="POST") as fault, pytest.raises(Unreachable):
        await guest.power("start")
    assert fault.hits == 1


async def test_a_write_refused_with_401_is_sent_once(lab, signed_in, faulty, started):
    client = signed_in(Password(*lab.password))
    guest = await client.guest(107)
    with faulty("unauthenticated", path=START) as fault, pytest.raises(Unauthenticated):
        await guest.power("start")
    assert (fault.hits, started()) == (1, [])


async def test_reads_survive_broken_answers(client, faulty):
    with faulty("drop", percent=3, path="/version") as fault:
        for _ in range(300):
            assert (await client.version()).release
    assert fault.hits > 0


async def test_reads_survive_connections_that_end(client, lab):
    for number in range(30):
        await client.version()
        lab.drop_connections(f"pve{number % 3 + 1}")


async def test_the_cluster_is_reached_while_one_node_answers(client, lab):
    """Quirks 3, 31 and 33: the others are told apart by name."""
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
    """Quirk 31: Proxmox asks the DNS."""
    with pytest.raises(NotFound, match="nope"):
        await client.node("nope").status()


@pytest.mark.parametrize(("kind", "status"), [("proxy-timeout", 596), ("proxy-redirects", 599)])
async def test_trouble_between_nodes_names_the_node(kind, status, client, faulty):
    """Quirk 3."""
    with faulty(kind, node="pve2"), pytest.raises(NodeUnreachable) as caught:
        await client.node("pve2").status()
    assert (caught.value.status, caught.value.node) == (status, "pve2")


async def test_without_quorum_reads_go_on_and_writes_are_refused(client, lab):
    """Quirk 32."""
    lab.lose_quorum()
    assert len((await client.cluster.resources()).guests) == 12
    assert not (await client.cluster.status()).quorate
    with pytest.raises(NoQuorum):
        await client.raw("PUT", "/nodes/pve1/qemu/100/config", description="x")


async def test_a_certificate_of_somebody_else_gets_nothing(lab, faulty):
    """Quirk 6."""
    seen = lab.fault("error", path="/")
    for node in lab.state.nodes:
        lab.swap_certificate(node)
    tls = Tls(fingerprints=lab.fingerprints.values())
    async with Client(lab.hosts, ApiToken(*lab.token), tls=tls) as client:
        with pytest.raises(TlsError, match="fingerprint"):
            await client.version()
    assert seen.hits == 0


async def test_the_certificates_of_a_cluster_are_trusted_by_its_ca(lab):
    """Quirk 5."""
    tls = Tls(ca_pem=lab.ca_pem)
    async with Client(lab.hosts, ApiToken(*lab.token), tls=tls) as client:
        assert (await client.version()).release


async def test_a_call_that_hangs_ends_at_the_deadline(client, faulty):
    hanging = faulty("hang", path="/version")
    with anyio.fail_after(10), hanging, pytest.raises(DeadlineExceeded), deadline(0.2):
        await client.version()
    assert (await client.version()).release


async def test_cancelled_calls_give_their_turns_back(client, faulty):
    with faulty("hang", path="/version"):
        calls = [asyncio.create_task(client.version()) for _ in range(10)]
        await anyio.wait_all_tasks_blocked()
        for call in calls:
            call.cancel()
        assert len(await asyncio.gather(*calls, return_exceptions=True)) == 10
    with anyio.fail_after(10):
        assert (await client.version()).release


async def test_a_refusal_on_a_path_names_what_is_missing(client, faulty):
    refused = faulty("forbidden", path="/nodes/pve1/status", message="/nodes/pve1, Sys.Audit")
    with refused, pytest.raises(Forbidden) as caught:
        await client.node("pve1").status()
    assert caught.value.privileges == ("Sys.Audit",)
