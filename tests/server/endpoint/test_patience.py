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


async def test_a_body_that_never_ends_is_answered_408(served, monkeypatch):
    monkeypatch.setattr("pvemcp_server.endpoint.wire.BODY_SECONDS", -1.0)
    head = f"POST /mcp/{served.key} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
    async with raw(served) as stream:
        await stream.send(head.encode() + b"{")
        assert (await stream.receive()).startswith(b"HTTP/1.1 408 ")
    assert served.app.endpoint.traffic.calls == 0


async def test_a_client_that_reads_nothing_loses_its_place(served, monkeypatch, caplog):
    monkeypatch.setattr("pvemcp_server.endpoint.wire.SEND_SECONDS", -1.0)
    caplog.set_level("INFO", "pvemcp_server.endpoint.gate")
    started = []

    async def answering(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"much", "more_body": False})

    async def receive():
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message):
        started.append(message["type"])
        if message["type"] == "http.response.body":
            await anyio.sleep_forever()

    headers = [(b"host", b"localhost"), (b"x-api-key", served.key.encode())]
    scope = {"type": "http", "method": "POST", "path": "/mcp", "headers": headers}
    with anyio.fail_after(20):
        await served.app.endpoint.gate(answering)(scope, receive, send)
    assert started == ["http.response.start", "http.response.body"]
    assert "stopped reading" in caplog.text
    assert served.app.endpoint.traffic.calls == 0
