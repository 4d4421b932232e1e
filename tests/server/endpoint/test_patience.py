"""Clients that dawdle over their request's head, or never end it."""

from contextlib import asynccontextmanager

import anyio
import pytest

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def raw(served):
    host, port = served.url.removeprefix("http://").split(":")
    with anyio.fail_after(30):
        async with await anyio.connect_tcp(host, int(port)) as stream:
            yield stream


async def ended(stream):
    """Whether the server closes the connection."""
    async for _ in stream:
        pass
    return True


@pytest.fixture
def hurried(monkeypatch):
    monkeypatch.setattr("pvemcp_server.endpoint.patience.HEAD_SECONDS", 0.05)


async def test_a_connection_that_says_nothing_is_closed(hurried, served):
    async with raw(served) as stream:
        assert await ended(stream)


async def test_a_head_that_never_ends_is_not_waited_for(hurried, served):
    async with raw(served) as stream:
        await stream.send(b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        assert await ended(stream)


async def test_the_next_head_on_a_kept_connection_is_not_waited_for_either(hurried, served):
    async with raw(served) as stream:
        await stream.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /healthz HT")
        assert b"200 OK" in await stream.receive()
        assert await ended(stream)


async def test_a_head_beyond_64_kib_is_refused(served):
    async with raw(served) as stream:
        await stream.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Large: " + b"x" * 70_000)
        assert (await stream.receive()).startswith(b"HTTP/1.1 431 ")


async def test_a_connection_is_kept_between_requests(served):
    async with raw(served) as stream:
        for _ in range(3):
            await stream.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200 OK" in await stream.receive()
