"""However many connections send at once, few are parsed before tasks continue."""

import asyncio

import anyio
import pytest

from pvemcp_server.http.connection import HttpConnection
from pvemcp_server.http.turns import KNOWN_AT_ONCE, STRANGERS_AT_ONCE, Turns

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
