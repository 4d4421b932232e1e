"""Retries under any sequence of faults: writes are sent once, reads take the first answer."""

import anyio
import httpx2 as httpx
from hypothesis import given, settings
from hypothesis import strategies as st

from proxmox_client import ApiToken, Client, Unreachable
from proxmox_client.transport import MAX_ATTEMPTS

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
