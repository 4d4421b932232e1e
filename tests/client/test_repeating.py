"""Whatever a wire does: a write goes out once, a read ends soon, and an answer is not lost."""

import anyio
import httpx2 as httpx
from hypothesis import given, settings
from hypothesis import strategies as st

from proxmox_client import ApiToken, Client, Unreachable
from proxmox_client.transport import TRIES

OPENING = {"refused": httpx.ConnectError, "unopened": httpx.ConnectTimeout}
UNDER_WAY = {"broken": httpx.ReadError, "ended": httpx.RemoteProtocolError}
SILENT = {"silent": httpx.ReadTimeout}
FAULTS = OPENING | UNDER_WAY | SILENT
SCRIPTS = st.lists(st.sampled_from(["answer", *FAULTS]), min_size=6, max_size=6)


class Wire(httpx.AsyncBaseTransport):
    """Fails as it is told, request by request."""

    def __init__(self, script: list[str]) -> None:
        self.script = script
        self.tried: list[str] = []
        self.hosts: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        act = self.script[len(self.tried)]
        self.tried.append(act)
        self.hosts.append(request.url.host)
        if act in FAULTS:
            raise FAULTS[act](act, request=request)
        return httpx.Response(200, json={"data": None})


def asked(wire: Wire, method: str, hosts: int) -> bool:
    """Ask once; whether there was an answer."""

    async def ask() -> bool:
        names = [f"pve{number}" for number in range(hosts)]
        client = Client(names, ApiToken("a@pve!b", "c"), wire=wire)
        try:
            await client.transport.ask(method, "/version")
        except Unreachable:
            return False
        return True

    return anyio.run(ask)


@settings(max_examples=60)
@given(script=SCRIPTS, hosts=st.integers(1, 3))
def test_a_write_reaches_proxmox_at_most_once(script, hosts):
    wire = Wire(script)
    answered = asked(wire, "POST", hosts)
    reached = [act for act in wire.tried if act not in OPENING]
    assert len(reached) <= 1
    assert answered is (reached == ["answer"])


@settings(max_examples=60)
@given(script=SCRIPTS, hosts=st.integers(1, 3))
def test_a_read_takes_the_first_answer_and_gives_up_in_time(script, hosts):
    wire = Wire(script)
    answered = asked(wire, "GET", hosts)
    assert len(wire.tried) <= max(TRIES, hosts)
    assert answered is (wire.tried[-1] == "answer")
    gave_up = len(wire.tried) == max(TRIES, hosts)
    hopeless = hosts == 1 and wire.tried[-1] in ("silent", "unopened")
    assert answered or gave_up or hopeless


@settings(max_examples=30)
@given(script=SCRIPTS)
def test_each_failure_turns_to_the_next_host(script):
    wire = Wire(script)
    asked(wire, "GET", 3)
    assert wire.hosts == [f"pve{number % 3}" for number in range(len(wire.hosts))]
