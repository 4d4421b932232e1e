"""Retries under any sequence of faults: writes are sent once, reads take the first answer."""

import anyio
import httpx2 as httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxmox_client import (
    ApiToken,
    Client,
    Limits,
    NodeUnreachable,
    ProxmoxError,
    Tls,
    Unreachable,
)
from proxmox_client.transport import MAX_ATTEMPTS, HostPool

BEFORE_SENDING = {"refused": httpx.ConnectError, "unopened": httpx.ConnectTimeout}
AFTER_SENDING = {"broken": httpx.ReadError, "ended": httpx.RemoteProtocolError}
TIMEOUT = {"timeout": httpx.ReadTimeout}
FAULTS = BEFORE_SENDING | AFTER_SENDING | TIMEOUT
SCRIPTS = st.lists(st.sampled_from(["answer", *FAULTS]), min_size=6, max_size=6)


class FaultyTransport(httpx.AsyncBaseTransport):
    """A transport that follows a script of answers and faults, one per request."""

    def __init__(self, script: list[str]) -> None:
        self.script = script
        self.attempts: list[str] = []
        self.hosts: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        act = self.script[len(self.attempts)]
        self.attempts.append(act)
        self.hosts.append(request.url.host)
        if act in FAULTS:
            raise FAULTS[act](act, request=request)
        return httpx.Response(200, json={"data": None})


def send(transport: FaultyTransport, method: str, hosts: int) -> bool:
    """Send one request; return whether it was answered."""

    async def request() -> bool:
        names = [f"pve{number}" for number in range(hosts)]
        client = Client(names, ApiToken("a@pve!b", "c"), http_transport=transport)
        try:
            await client.transport.request_data(method, "/version")
        except Unreachable:
            return False
        return True

    return anyio.run(request)


@settings(max_examples=60)
@given(script=SCRIPTS, hosts=st.integers(1, 3))
def test_a_write_reaches_proxmox_at_most_once(script, hosts):
    transport = FaultyTransport(script)
    answered = send(transport, "POST", hosts)
    reached = [act for act in transport.attempts if act not in BEFORE_SENDING]
    assert len(reached) <= 1
    assert answered is (reached == ["answer"])


@settings(max_examples=60)
@given(script=SCRIPTS, hosts=st.integers(1, 3))
def test_a_read_takes_the_first_answer_within_the_attempts(script, hosts):
    transport = FaultyTransport(script)
    answered = send(transport, "GET", hosts)
    assert len(transport.attempts) <= max(MAX_ATTEMPTS, hosts)
    assert answered is (transport.attempts[-1] == "answer")
    gave_up = len(transport.attempts) == max(MAX_ATTEMPTS, hosts)
    hopeless = hosts == 1 and transport.attempts[-1] in ("timeout", "unopened")
    assert answered or gave_up or hopeless


@settings(max_examples=30)
@given(script=SCRIPTS)
def test_each_failure_switches_to_the_next_host(script):
    transport = FaultyTransport(script)
    send(transport, "GET", 3)
    assert transport.hosts == [f"pve{number % 3}" for number in range(len(transport.hosts))]


HTML = b"<!doctype html><title>502 Bad Gateway</title>"
NO_PMXCFS = b"RPCEnvironment init request failed: Unable to load access control list: refused"
# each: status, reason, body; whether a write certainly had no effect
OUTAGES = {
    "pmxcfs is stopped": (500, NO_PMXCFS, b"", True),
    "pmxcfs stops during the request": (
        500,
        b"ipcc_send_rec[1] failed: Connection refused",
        b'{"data":null}',
        False,
    ),
    "the mount of pmxcfs is dead": (
        500,
        b"unable to open file '/etc/pve/user.cfg' - Transport endpoint is not connected",
        b'{"data":null}',
        False,
    ),
    "an error without a body": (500, b"", b"", False),
    "pvedaemon is down": (595, b"Connection refused", b"", True),
    "a broken pipe between nodes": (596, b"Broken pipe", b"", False),
    "a node in between fails": (599, b"Too many redirections", b"", False),
    "HTML as a success": (200, b"OK", HTML, False),
    "HTML of a proxy": (502, b"Bad Gateway", HTML, False),
    "an error of a proxy": (503, b"Service Unavailable", b"", False),
    "half a body": (200, b"OK", b'{"data":[{"vmid":1', False),
    "no body": (200, b"OK", b"", False),
}


class TransportWithOutages(httpx.AsyncBaseTransport):
    """A transport whose hosts in `out` answer with an outage, and all others with an answer."""

    def __init__(self, outage: str, out: set[str]) -> None:
        status, reason, body, _ = OUTAGES[outage]
        self.outage, self.out, self.asked = (status, reason, body), out, []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.host)
        if request.url.host not in self.out:
            return httpx.Response(200, json={"data": "an answer"})
        status, reason, body = self.outage
        return httpx.Response(status, content=body, extensions={"reason_phrase": reason})

    def client(self, *hosts: str) -> Client:
        return Client(hosts, ApiToken("a@pve!b", "c"), http_transport=self)


every_outage = pytest.mark.parametrize("outage", OUTAGES)
every_path = pytest.mark.parametrize("path", ["/version", "/nodes/pve9/status"])


@every_outage
@every_path
@pytest.mark.anyio
async def test_a_read_goes_to_the_next_host_when_one_has_an_outage(outage, path):
    transport = TransportWithOutages(outage, {"a"})
    client = transport.client("a", "b", "c")
    assert await client.transport.request_data("GET", path) == "an answer"
    assert await client.transport.request_data("GET", path) == "an answer"
    assert transport.asked == ["a", "b", "b"]  # and stays there


@every_outage
@every_path
@pytest.mark.anyio
async def test_a_write_goes_to_the_next_host_only_if_it_had_no_effect(outage, path):
    transport = TransportWithOutages(outage, {"a"})
    client = transport.client("a", "b")
    if OUTAGES[outage][-1]:
        assert await client.transport.request_data("POST", path) == "an answer"
    else:
        with pytest.raises(ProxmoxError):
            await client.transport.request_data("POST", path)
        assert transport.asked == ["a"]


@every_outage
@pytest.mark.anyio
async def test_each_host_is_asked_once_when_all_have_an_outage(outage):
    transport = TransportWithOutages(outage, {"a", "b", "c"})
    with pytest.raises(ProxmoxError):
        await transport.client("a", "b", "c").transport.request_data("GET", "/version")
    assert sorted(transport.asked) == ["a", "b", "c"]


class RefusingHosts(TransportWithOutages):
    """A transport whose hosts refuse connections, but for those with an outage."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.host in self.out:
            return await super().handle_async_request(request)
        raise httpx.ConnectError("refused", request=request)


@pytest.mark.anyio
async def test_an_unreachable_node_is_asked_about_at_one_further_host():
    transport = TransportWithOutages("pvedaemon is down", {"a", "b", "c"})
    client = transport.client("a", "b", "c")
    with pytest.raises(NodeUnreachable, match="Connection refused"):
        await client.node("pve9").status()
    transport.out = set()
    await client.transport.request_data("GET", "/version")
    with pytest.raises(NodeUnreachable, match="Connection refused"):
        await RefusingHosts("pvedaemon is down", {"a"}).client("a", "b", "c").node("pve9").status()
    assert transport.asked == ["a", "b", "a"]  # the current host is none the worse for it


@pytest.mark.parametrize(("waited", "asked"), [(1.0, ["a", "b"]), (30.0, ["a"])])
@pytest.mark.anyio
async def test_a_host_that_waited_for_a_node_is_the_only_one_that_does(waited, asked):
    seconds = 0.0

    class SlowHosts(TransportWithOutages):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            nonlocal seconds
            seconds += waited
            return await super().handle_async_request(request)

    transport = SlowHosts("a broken pipe between nodes", {"a", "b", "c"})
    pool = HostPool(["a", "b", "c"], Tls(), Limits(), transport, clock=lambda: seconds)
    response = await pool.send("GET", "/nodes/pve9/status", "", {}, safe=True)
    assert response.status == 596
    assert transport.asked == asked
