"""Messages between processes: what a user of the database can do with those that it has seen."""

from types import SimpleNamespace

import anyio
import pytest

from pvemcp_server.access.model import Caller, Role
from pvemcp_server.errors import StateUnavailable
from pvemcp_server.mcp.relay import FRESH_SECONDS, Relay
from pvemcp_server.store.database import waits

pytestmark = pytest.mark.anyio
CALLER = Caller("key", "key", Role(1, "role", "", ()))


SCOPE = {
    "path": "/mcp",
    "method": "POST",
    "query_string": b"",
    "headers": [],
    "state": {"caller": CALLER},
}


def relay_of(sent, served, find, clock=lambda: 1_000.0):
    async def send(_to, content):
        sent.append(content)

    async def admits(_caller):
        return True

    async def app(scope, _receive, respond):
        served.append(scope["state"]["body"])
        await respond({"type": "http.response.start", "status": 202, "headers": []})
        await respond({"type": "http.response.body", "body": b""})

    channel = SimpleNamespace(process="a", has_others=True, send=send)
    relay = Relay(channel, find, admits, clock)
    relay.apps = {"/mcp": app}
    return relay


async def find(_key, _address):
    return CALLER


async def test_a_message_that_finds_no_database_is_served_when_it_is_sent_again():
    sent, served, waited, answers = [], [], [], iter([StateUnavailable("away"), None])

    async def find_later(_key, _address):
        waited.append(waits.get())
        if failure := next(answers):
            raise failure
        return CALLER

    relay = relay_of(sent, served, find_later)
    await relay.announce(SCOPE, b"first")
    [message] = sent
    for number in (0, 1, 1):
        async with anyio.create_task_group() as tasks:
            relay._receive(message, tasks)
        assert len(served) == number
    assert waited == [True, True]
    assert relay._taken.keys() == relay._answers.keys()


async def test_a_message_that_is_repeated_is_served_once_for_ever():
    now, sent, served = [1_000.0], [], []
    relay, scope = relay_of(sent, served, find, lambda: now[0]), SCOPE
    await relay.announce(scope, b"first")
    [message] = sent
    async with anyio.create_task_group() as tasks:
        relay._receive(message, tasks)
        for number in range(2_000):  # more than are kept of anything
            relay._receive({**message, "id": f"{number}", "body": "other"}, tasks)
        for later in (0.0, FRESH_SECONDS, 2 * FRESH_SECONDS, 5 * FRESH_SECONDS):
            now[0] += later
            relay._receive(message, tasks)
    assert served.count(b"first") == 1
    now[0] += 1
    await relay.announce(scope, b"second")
    async with anyio.create_task_group() as tasks:
        relay._receive(sent[-1], tasks)
    assert served[-1] == b"second"
    assert len(relay._answers) == 1
