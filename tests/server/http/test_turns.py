"""However many connections send at once, few are parsed before tasks continue."""

import asyncio
from datetime import UTC, datetime

import anyio
import pytest

from pvemcp_server.http.connection import HttpConnection
from pvemcp_server.http.connection_limits import KNOWN_AT_ONCE, STRANGERS_AT_ONCE, Turns

pytestmark = pytest.mark.anyio


async def test_strangers_do_not_delay_a_client_with_a_key():
    turns, parsed = Turns(), []
    for number in range(200):
        turns.wait(lambda number=number: parsed.append(number), known=False)
    turns.wait(lambda: parsed.append("key"), known=True)
    await asyncio.sleep(0)
    assert parsed == ["key", *range(STRANGERS_AT_ONCE)]
    for _ in range(200):
        await asyncio.sleep(0)
    assert parsed == ["key", *range(200)]


async def test_no_part_of_a_request_with_a_valid_key_waits_for_strangers(served, monkeypatch):
    queues, waiting, begun = [], Turns.wait, asyncio.Event()

    def wait(turns, parse, *, known):
        queues.append("known" if known else "strangers")
        begun.set()
        waiting(turns, parse, known=known)

    async def queues_of(*requests, cookie=""):
        """Send the requests, each head and body apart, on one connection."""
        queues.clear()
        host, port = served.url.removeprefix("http://").split(":")
        async with await anyio.connect_tcp(host, int(port)) as stream:
            for path, status in requests:
                begun.clear()
                head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n"
                await stream.send(f"{head}Content-Length: 2\r\n\r\n".encode())
                await begun.wait()
                await stream.send(b"{}")
                assert (await stream.receive()).startswith(f"HTTP/1.1 {status} ".encode())
        return queues

    monkeypatch.setattr(Turns, "wait", wait)
    valid, wrong = f"/mcp/{served.key}", f"/mcp/{served.key[:-1]}~"
    assert "strangers" in await queues_of((valid, 400))  # a key is loaded by its first use
    assert set(await queues_of(("/mcp", 401), (wrong, 401))) == {"strangers"}
    assert set(await queues_of((valid, 400), (valid, 400))) == {"known"}
    assert (await queues_of((valid, 400), ("/mcp", 401), ("/mcp", 401)))[-1] == "strangers"
    keys = served.state.access.keys
    for refused in (
        {"enabled": False},
        {"enabled": True, "allow_from": ["10.0.0.0/8"]},
        {"allow_from": [], "expires": datetime(2020, 1, 1, tzinfo=UTC)},
    ):
        await keys.change(served.key_id, **refused)
        await served.state.store.watch.poll()
        of_refused = await queues_of((valid, 401), (valid, 401))
        assert set(of_refused) == {"strangers"}, refused
    admin = await served.state.access.admins.create("ada", "correct horse battery")
    session = await served.state.access.sessions.open(admin, address="", agent="")
    signed_in = await queues_of(*[("/admin/sign-out", 403)] * 2, cookie=f"pvemcp_session={session}")
    assert (signed_in[0], signed_in[-1]) == ("strangers", "known"), "a session counts as a key"


@pytest.mark.parametrize(
    "burst",
    [
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100,
        b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"1\r\na\r\n" * 3_000,
    ],
    ids=["pipelined requests", "tiny chunks"],
)
async def test_few_connections_are_parsed_in_one_turn(serving, monkeypatch, burst):
    counts, received, following = [0], HttpConnection.data_received, Turns._next

    def data_received(connection, data):
        counts[-1] += 1
        received(connection, data)

    def take_turns(turns):
        counts.append(0)
        following(turns)

    monkeypatch.setattr(HttpConnection, "data_received", data_received)
    monkeypatch.setattr(Turns, "_next", take_turns)
    async with serving() as served, anyio.create_task_group() as tasks:
        host, port = served.url.removeprefix("http://").split(":")

        async def send():
            async with await anyio.connect_tcp(host, int(port)) as stream:
                await stream.send(burst)
                await stream.receive()

        for _ in range(30):
            tasks.start_soon(send)
    assert max(counts) <= KNOWN_AT_ONCE + STRANGERS_AT_ONCE
    assert sum(counts) >= 30
