"""Connections of slow clients, of clients that offer an upgrade, and of pipelining clients."""

import json
from contextlib import asynccontextmanager

import anyio
import pytest

from pvemcp_server.http.connection import (
    HEADERS,
    LEAST_BYTES,
    READ_BYTES,
    GuardedFlow,
    HttpConnection,
)

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def connect(served):
    """Open a raw connection."""
    host, port = served.url.removeprefix("http://").split(":")
    with anyio.fail_after(30):
        async with await anyio.connect_tcp(host, int(port)) as stream:
            yield stream


async def is_closed(stream):
    """Return True when the server closes the connection."""
    async for _ in stream:
        pass
    return True


async def receive_until(stream, end):
    """Return the received data, which contains `end`."""
    text = b""
    while end not in text:
        text += await stream.receive()
    return text


@pytest.fixture
def short_head_timeout(monkeypatch):
    monkeypatch.setattr("pvemcp_server.http.connection.HEAD_SECONDS", 0.05)


async def test_a_silent_connection_is_closed(short_head_timeout, served):
    async with connect(served) as stream:
        assert await is_closed(stream)


async def test_a_head_that_never_ends_is_not_awaited(short_head_timeout, served):
    async with connect(served) as stream:
        await stream.send(b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        assert await is_closed(stream)


async def test_the_next_head_on_a_kept_connection_has_the_same_timeout(short_head_timeout, served):
    async with connect(served) as stream:
        await stream.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /healthz HT")
        assert b"200 OK" in await stream.receive()
        assert await is_closed(stream)


async def test_a_running_call_has_no_head_timeout(short_head_timeout, served, fake_tools):
    answers = []

    async def call():
        answers.append(await served.modern.call("Wait"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        with anyio.fail_after(20):
            await fake_tools.started.wait()
            await anyio.sleep(0.2)
            fake_tools.release.set()
    assert "waited" in answers[0]["result"]["content"][0]["text"]


async def test_a_head_beyond_64_kib_is_refused(served):
    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Large: "
    async with connect(served) as stream:
        await stream.send(head + b"x" * 70_000)
        assert (await stream.receive()).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    ("target", "headers", "status"),
    [
        ("/healthz", HEADERS - 1, 200),
        ("/healthz", HEADERS, 400),
        (f"/healthz?{'a&' * 4_000}", 1, 200),
        (f"/healthz?{'a&' * 4_200}", 1, 400),
    ],
)
async def test_a_head_has_so_many_headers_and_parameters_at_most(served, target, headers, status):
    more = "a:\r\n" * headers
    async with connect(served) as stream:
        head = f"GET {target} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n"
        await stream.send(head.encode())
        assert (await stream.receive()).startswith(f"HTTP/1.1 {status} ".encode())


async def test_pipelined_requests_do_not_count_as_one_head(served):
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with connect(served) as stream, anyio.create_task_group() as tasks:
        tasks.start_soon(stream.send, request * 301)
        answers = b""
        while answers.count(b'"ok"}') < 301:
            answers += await stream.receive()
    assert answers.count(b"HTTP/1.1 200 OK") == 301


async def test_a_connection_is_kept_between_requests(served):
    async with connect(served) as stream:
        for _ in range(3):
            await stream.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200 OK" in await stream.receive()


async def test_a_body_that_never_ends_is_answered_408(served, monkeypatch):
    monkeypatch.setattr("pvemcp_server.http.exchange.BODY_SECONDS", -1.0)
    head = f"POST /mcp/{served.key} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
    async with connect(served) as stream:
        await stream.send(head.encode() + b"{")
        assert (await stream.receive()).startswith(b"HTTP/1.1 408 ")
    assert served.app.endpoint.active_requests.calls == 0


async def test_a_client_that_reads_nothing_loses_its_place(served, monkeypatch, caplog):
    monkeypatch.setattr("pvemcp_server.http.exchange.SEND_SECONDS", -1.0)
    caplog.set_level("INFO", "pvemcp_server.http.exchange")
    sent = []

    async def receive():
        body = b'{"jsonrpc": "2.0", "method": "ping"}'
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message["type"])
        if message["type"] == "http.response.body":
            await anyio.sleep_forever()

    headers = [(b"host", b"localhost"), (b"x-api-key", served.key.encode())]
    scope = {"type": "http", "method": "POST", "path": "/mcp", "headers": headers}
    with anyio.fail_after(20):
        await served.app.asgi(scope, receive, send)
    assert sent == ["http.response.start", "http.response.body"]
    assert "stopped reading" in caplog.text
    assert served.app.endpoint.active_requests.calls == 0


H2C = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n"


def head_with_upgrade(served, length):
    """Return the head of a call as Java's client sends it: with an offer of HTTP/2."""
    fields = served.modern.headers("tools/list") | {"Content-Type": "application/json"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {served.modern.path} HTTP/1.1\r\nHost: localhost\r\n{H2C}{lines}{length}\r\n"


@pytest.mark.parametrize("apart", [False, True], ids=["in one piece", "head and body apart"])
@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "in chunks"])
async def test_an_offer_of_http2_is_ignored(served, apart, chunked, caplog):
    message = json.dumps(served.modern.message("tools/list"))
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(message)}"
    head = head_with_upgrade(served, f"{length}\r\n").encode()
    body = (f"{len(message):x}\r\n{message}\r\n0\r\n\r\n" if chunked else message).encode()
    async with connect(served) as stream:
        for piece in (head, body) if apart else (head + body,):
            await stream.send(piece)
        assert b"200 OK" in await stream.receive()
        await stream.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b'{"status":"ok"}' in await receive_until(stream, b'"ok"}')
    assert "upgrade" not in caplog.text


async def test_pipelined_requests_may_all_offer_http2(served):
    message = json.dumps(served.modern.message("tools/list"))
    request = head_with_upgrade(served, f"Content-Length: {len(message)}\r\n") + message
    last = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with connect(served) as stream:
        await stream.send(request.encode() * 3 + last)
        answers = await receive_until(stream, b'"status":"ok"')
    assert answers.count(b"HTTP/1.1 200 OK") == 4


@pytest.mark.parametrize("path", ["/healthz", "/mcp", "/admin/sign-in", "/nothing"])
@pytest.mark.parametrize("second", ["localhost", "evil.example"])
async def test_two_host_headers_are_refused(served, path, second):
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nHost: {second}\r\n\r\n"
    async with connect(served) as stream:
        await stream.send(head.encode())
        assert (await stream.receive()).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(("authority", "status"), [("evil.example:80", 421), ("localhost", 200)])
async def test_the_host_of_an_absolute_target_counts(served, authority, status):
    head = f"GET http://{authority}/version HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with connect(served) as stream:
        await stream.send(head.encode())
        assert (await stream.receive()).startswith(f"HTTP/1.1 {status} ".encode())


async def test_a_tunnel_is_refused(served):
    async with connect(served) as stream:
        await stream.send(b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await stream.receive()).startswith(b"HTTP/1.1 400 ")


def chunked(served, path):
    kind = "application/x-www-form-urlencoded"
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    ).encode()


@pytest.mark.parametrize(
    ("path", "field", "status"),
    [("/mcp", "X-API-Key: {key}", 401), ("/admin/sign-in", "Host: evil.example", 422)],
)
async def test_a_trailer_is_no_header(served, path, field, status):
    trailer = field.format(key=served.key).encode()
    async with connect(served) as stream:
        await stream.send(chunked(served, path) + b"2\r\n{}\r\n0\r\n" + trailer + b"\r\n\r\n")
        assert (await stream.receive()).startswith(f"HTTP/1.1 {status} ".encode())


@pytest.mark.parametrize("path", ["/mcp", "/admin/sign-in", "/nothing"])
@pytest.mark.parametrize(
    ("begin", "more"),
    [(b"0\r\n", b"x-trailer: 1\r\n"), (b"0\r\nx-trailer: ", b"x"), (b"2;", b"x")],
    ids=["many trailers", "a long trailer", "a long chunk extension"],
)
async def test_what_is_no_content_of_a_body_ends_the_connection(served, path, begin, more):
    async with connect(served) as stream:
        await stream.send(chunked(served, path) + begin)
        with pytest.raises(anyio.BrokenResourceError):
            await send_for_long(stream, more * 1_000)


async def send_for_long(stream, data):
    for _ in range(10_000):
        await stream.send(data)


async def test_nothing_is_read_while_pipelined_requests_wait():
    class Transport:
        reads = True

        def pause_reading(self):
            self.reads = False

        def resume_reading(self):
            self.reads = True

    transport, pipeline = Transport(), ["a request"]
    flow = GuardedFlow(transport, lambda: not pipeline)
    flow.pause_reading()
    flow.resume_reading()
    assert not transport.reads
    pipeline.clear()
    flow.resume_reading()
    assert transport.reads


async def test_pipelined_requests_are_kept_in_bounds(served, monkeypatch):
    """Read as uvicorn's `receive` does, whenever an application waits for its client."""
    longest = []
    complete = HttpConnection.on_response_complete

    def on_response_complete(connection):
        complete(connection)
        longest.append(len(connection.pipeline))

    monkeypatch.setattr(HttpConnection, "on_response_complete", on_response_complete)
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with connect(served) as stream, anyio.create_task_group() as tasks:
        tasks.start_soon(stream.send, request * 1_500)
        answers = 0
        while answers < 1_500:
            answers += (await stream.receive()).count(b'"ok"}')
    assert max(longest) <= LEAST_BYTES // len(request) + 1  # of one turn


async def test_no_read_is_long_enough_to_keep_other_connections_waiting(served, monkeypatch):
    """Send tiny chunks: thousands of them in one read would block the event loop for long."""
    sizes = []
    received = HttpConnection.data_received

    def data_received(connection, data):
        sizes.append(len(data))
        received(connection, data)

    monkeypatch.setattr(HttpConnection, "data_received", data_received)
    head = "Host: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with connect(served) as stream:
        await stream.send(f"POST /admin/api/session HTTP/1.1\r\n{head}".encode())
        with pytest.raises(anyio.BrokenResourceError):
            await send_for_long(stream, b"1\r\n \r\n" * 100_000)
    assert max(sizes) == READ_BYTES
