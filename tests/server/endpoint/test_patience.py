"""Clients that dawdle over their request's head, never end it, or offer to go on otherwise."""

import json
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
    monkeypatch.setattr("pvemcp_server.http.httptools_protocol.HEAD_SECONDS", 0.05)


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


async def test_requests_sent_ahead_of_their_answers_are_no_part_of_the_next_head(served):
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Pad: " + b"x" * 1_000 + b"\r\n\r\n"
    async with raw(served) as stream:
        await stream.send(request * 300 + request[:-1])
        await stream.send(request[-1:])
        answers = b""
        while answers.count(b'"ok"}') < 301:
            answers += await stream.receive()
    assert answers.count(b"HTTP/1.1 200 OK") == 301


async def test_a_connection_is_kept_between_requests(served):
    async with raw(served) as stream:
        for _ in range(3):
            await stream.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200 OK" in await stream.receive()


async def test_a_body_that_never_ends_is_answered_408(served, monkeypatch):
    monkeypatch.setattr("pvemcp_server.http.exchange.BODY_SECONDS", -1.0)
    head = f"POST /mcp/{served.key} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
    async with raw(served) as stream:
        await stream.send(head.encode() + b"{")
        assert (await stream.receive()).startswith(b"HTTP/1.1 408 ")
    assert served.app.endpoint.active_requests.calls == 0


async def test_a_client_that_reads_nothing_loses_its_place(served, monkeypatch, caplog):
    monkeypatch.setattr("pvemcp_server.http.exchange.SEND_SECONDS", -1.0)
    caplog.set_level("INFO", "pvemcp_server.http.gate")
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
    assert served.app.endpoint.active_requests.calls == 0


H2C = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n"


def offering(served, length):
    """The head of a call as Java's client sends it: with an offer to go on in HTTP/2."""
    heads = served.modern.headers("tools/list") | {"Content-Type": "application/json"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in heads.items())
    return f"POST {served.modern.path} HTTP/1.1\r\nHost: localhost\r\n{H2C}{lines}{length}\r\n"


@pytest.mark.parametrize("apart", [False, True], ids=["in one piece", "head and body apart"])
@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "in chunks"])
async def test_a_request_that_offers_http2_is_answered_as_if_it_did_not(served, apart, chunked):
    message = json.dumps(served.modern.message("tools/list"))
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(message)}"
    head = offering(served, f"{length}\r\n").encode()
    body = (f"{len(message):x}\r\n{message}\r\n0\r\n\r\n" if chunked else message).encode()
    async with raw(served) as stream:
        for piece in (head, body) if apart else (head + body,):
            await stream.send(piece)
        assert b"200 OK" in await stream.receive()
        await stream.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b'{"status":"ok"}' in await received(stream, b'"ok"}')


async def test_each_of_several_requests_sent_together_may_offer_http2(served):
    message = json.dumps(served.modern.message("tools/list"))
    request = offering(served, f"Content-Length: {len(message)}\r\n") + message
    last = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with raw(served) as stream:
        await stream.send(request.encode() * 3 + last)
        answers = await received(stream, b'"status":"ok"')
    assert answers.count(b"HTTP/1.1 200 OK") == 4


async def received(stream, end):
    """What came until the connection had said that."""
    text = b""
    while end not in text:
        text += await stream.receive()
    return text


async def test_a_connection_that_asks_for_a_tunnel_is_refused(served):
    async with raw(served) as stream:
        await stream.send(b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await stream.receive()).startswith(b"HTTP/1.1 400 ")
