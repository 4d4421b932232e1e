"""Hosts in a partition without quorum: another configured host that has quorum is asked instead."""

import asyncio

import anyio
import httpx2 as httpx
import pytest

from proxmox_client import ApiToken, Client, Limits

pytestmark = pytest.mark.anyio

NODES = ("a", "b", "c", "d", "e")
LIMITS = Limits(probe_timeout=0.05)


class Hosts(httpx.AsyncBaseTransport):
    """A cluster of five nodes, in partitions; a host knows the members of its own."""

    def __init__(self, *partitions, hanging=(), down=(), strange=()):
        self.partitions = partitions
        self.hanging, self.down, self.strange = hanging, down, strange
        self.asked = []

    async def handle_async_request(self, request):
        host, path = request.url.host, request.url.path.removeprefix("/api2/json")
        self.asked.append(host)
        if host in self.down:
            raise httpx.ConnectError("refused", request=request)
        if host in self.hanging:
            await anyio.sleep_forever()
        if path == "/version":
            return httpx.Response(200, json={"data": {"version": "9.0.1"}})
        members = next(p for p in self.partitions if host in p)
        cluster = {
            "type": "cluster",
            "name": "other" if host in self.strange else "lab",
            "quorate": int(len(members) * 2 > len(NODES)),
        }
        nodes = [{"type": "node", "name": n, "online": int(n in members)} for n in NODES]
        return httpx.Response(200, json={"data": [cluster, *nodes]})

    def client(self, hosts):
        return Client(list(hosts), ApiToken("a@pve!b", "c"), limits=LIMITS, http_transport=self)

    async def status(self, client):
        """Return the status, and the hosts that were asked for it."""
        self.asked.clear()
        return await client.cluster.status(), sorted(self.asked)


async def test_a_host_with_quorum_is_asked_once():
    hosts = Hosts("abcde")
    status, asked = await hosts.status(hosts.client("abc"))
    assert (status.quorate, status.cut_off, asked) == (True, (), ["a"])


async def test_the_host_with_quorum_answers_for_a_first_one_that_lacks_it():
    hosts = Hosts("ab", "cde")
    client = hosts.client("abcd")
    status, asked = await hosts.status(client)
    assert asked == ["a", "b", "c", "d"]
    assert (status.quorate, status.online, status.cut_off) == (True, {"c", "d", "e"}, ("a", "b"))
    hosts.asked.clear()
    await client.version()
    assert hosts.asked == ["c"]


async def test_a_split_is_named_until_it_ends():
    hosts = Hosts("ab", "cde")
    client = hosts.client("ac")
    for _ in range(2):
        status, asked = await hosts.status(client)
        assert (status.cut_off, asked) == (("a", "b"), ["a", "c"])
    hosts.partitions = ("abcde",)
    for asked_hosts in (["a", "c"], ["c"]):
        status, asked = await hosts.status(client)
        assert (status.cut_off, asked) == ((), asked_hosts)


@pytest.mark.parametrize(
    "state",
    [
        {"down": "b"},
        {"hanging": "b"},
        {"strange": "b"},
        {"partitions": ("a", "b", "c", "d", "e")},
    ],
    ids=["refuses", "hangs", "of another cluster", "without quorum too"],
)
async def test_without_any_quorum_the_first_host_answers(state):
    hosts = Hosts(*state.pop("partitions", ("a", "bcde")), **state)
    client = hosts.client("ab")
    async with asyncio.timeout(5):
        status, asked = await hosts.status(client)
    assert (status.quorate, status.online, status.cut_off) == (False, {"a"}, ())
    assert asked == ["a", "b"]
    hosts.asked.clear()
    await client.version()
    assert hosts.asked == ["a"]


async def test_a_host_that_hangs_does_not_keep_the_others_from_answering():
    hosts = Hosts("ab", "cde", hanging="b")
    async with asyncio.timeout(5):
        status, _ = await hosts.status(hosts.client("abc"))
    assert status.quorate


async def test_the_only_host_is_not_asked_twice():
    hosts = Hosts("ab", "cde")
    status, asked = await hosts.status(hosts.client("a"))
    assert (status.quorate, asked) == (False, ["a"])


async def test_the_number_of_hosts_that_are_asked_at_once_is_bounded():
    hosts = Hosts("a", "bcde")
    _, asked = await hosts.status(hosts.client([f"a:{8006 + n}" for n in range(20)]))
    assert len(asked) == 9
