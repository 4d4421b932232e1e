"""Messages between processes: what users of the database and holders of keys can do with them."""

import threading
from contextlib import asynccontextmanager
from types import SimpleNamespace

import anyio
import pytest

from pvemcp_server.access.model import Caller, Role
from pvemcp_server.errors import StateUnavailable
from pvemcp_server.mcp.relay import FRESH_SECONDS, Relay
from pvemcp_server.store import process_channel
from pvemcp_server.store.database import waits
from pvemcp_server.store.process_channel import SEALED_AT_ONCE, ProcessChannel

pytestmark = pytest.mark.anyio
CALLER = Caller("key", "key", Role(1, "role", "", ()))

SCOPE = {
    "path": "/mcp",
    "method": "POST",
    "query_string": b"",
    "headers": [],
    "state": {"caller": CALLER},
}


async def find(_key, _address):
    return CALLER


def relay_of(sent, served, **options):
    """Return a relay that lists the messages it sends, and the bodies it serves."""

    async def send(_to, content):
        sent.append(content)

    async def app(scope, _receive, respond):
        served.append(scope["state"]["body"])
        await respond({"type": "http.response.start", "status": 202, "headers": []})
        await respond({"type": "http.response.body", "body": b""})

    return relay_with(app, send, **options)


def relay_with(app, send, clock=lambda: 1_000.0, find=find):
    async def admits(_caller):
        return True

    channel = SimpleNamespace(process="a", has_others=True, send=send)
    relay = Relay(channel, find, admits, clock)
    relay.apps = {"/mcp": app}
    return relay


async def test_a_message_that_finds_no_database_is_served_when_it_is_sent_again():
    sent, served, waited, answers = [], [], [], iter([StateUnavailable("away"), None])

    async def find_later(_key, _address):
        waited.append(waits.get())
        if failure := next(answers):
            raise failure
        return CALLER

    relay = relay_of(sent, served, find=find_later)
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

    relay = relay_of(sent, served, clock=lambda: now[0])
    await relay.announce(SCOPE, b"first")
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
    await relay.announce(SCOPE, b"second")
    async with anyio.create_task_group() as tasks:
        relay._receive(sent[-1], tasks)
    assert served[-1] == b"second"
    assert len(relay._answers) == 1


async def test_what_every_process_serves_is_neither_answered_nor_kept():
    sent = []

    async def send(_to, content):
        sent.append(content)

    async def app(_scope, _receive, respond):
        await respond({"type": "http.response.start", "status": 200, "headers": []})
        await respond({"type": "http.response.body", "body": b"x" * 200_000})

    relay = relay_with(app, send)
    await relay.announce(SCOPE, b"subscribe")
    [announced] = sent
    async with anyio.create_task_group() as tasks:
        for number in range(50):
            relay._receive({**announced, "id": f"{number}"}, tasks)
    async with anyio.create_task_group() as tasks:  # sent again
        relay._receive({**announced, "id": "0"}, tasks)
    assert sent == [announced]
    assert not any(relay._answers.values())


async def test_a_long_message_is_sealed_beside_other_calls(monkeypatch):
    # to compress 256 KiB takes tenths of a second, in which no other call would be served
    threads, sent = [], []
    seal = process_channel._sealed

    def noted(*arguments):
        threads.append(threading.current_thread())
        return seal(*arguments)

    async def execute(statement):
        sent.append(statement)

    @asynccontextmanager
    async def writing():
        yield SimpleNamespace(execute=execute)

    monkeypatch.setattr(process_channel, "_sealed", noted)
    fleet, database = SimpleNamespace(id="12345678", is_shared=True), SimpleNamespace()
    database.writing = writing
    channel = ProcessChannel(database, fleet, lambda: b"k" * 32)
    await channel.send("b", {"body": "short"})
    await channel.send("b", {"body": "é" * SEALED_AT_ONCE})
    here = threading.current_thread()
    assert [thread is here for thread in threads] == [True, False]
    assert len(sent) == 2
