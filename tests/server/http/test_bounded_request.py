"""Every body is limited in size and time, whatever its path, before anything is kept of it."""

import resource
from itertools import product

import anyio
import pytest

from pvemcp_server.http.bounded_request import serve_bounded
from pvemcp_server.http.connection import READ_BYTES, UNREAD_BODY_PARTS, HttpConnection
from pvemcp_server.http.exchange import BODY_BYTES
from pvemcp_server.http.gate import KeyGate
from pvemcp_server.web import application as site
from pvemcp_server.web.application import SIGN_IN_BYTES, SIGN_INS

pytestmark = pytest.mark.anyio

FORM = "application/x-www-form-urlencoded"
UPLOADS = [
    ("/admin/sign-in", FORM),
    ("/admin/api/session", "application/json"),
    ("/mcp/{key}", "application/json"),
    ("/sse/{key}/messages", "application/json"),
]


def head(served, path, kind, length):
    path = path.format(key=served.key)
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n{length}\r\n\r\n"
    ).encode()


async def connect(served):
    host, port = served.url.removeprefix("http://").split(":")
    return await anyio.connect_tcp(host, int(port))


@pytest.mark.parametrize(("path", "kind"), UPLOADS)
@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "in chunks"])
async def test_a_body_beyond_the_limit_gets_413(served, path, kind, chunked):
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {BODY_BYTES + 1}"
    body = b"x" * (BODY_BYTES + 1)
    async with await connect(served) as stream:
        await stream.send(head(served, path, kind, length))
        await stream.send(b"%x\r\n%b\r\n" % (len(body), body) if chunked else body)
        with anyio.fail_after(20):
            assert (await stream.receive()).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(("method", "path"), SIGN_INS)
async def test_the_body_of_a_sign_in_is_short(served, method, path):
    kind = "application/json" if "/api/" in path else FORM
    body = b"x" * (SIGN_IN_BYTES + 1)
    answer = await served.http.request(method, path, content=body, headers={"Content-Type": kind})
    assert answer.status_code == 413


async def test_no_answer_is_made_for_a_body_that_is_refused(served, monkeypatch):
    made = []
    monkeypatch.setattr("pvemcp_server.http.bounded_request.BODY_SECONDS", -1.0)
    for name in ("error_page", "_error"):
        monkeypatch.setattr(site, name, lambda *details: made.append(details))
    for (_, path), length in product(SIGN_INS, (9, SIGN_IN_BYTES + 1, BODY_BYTES + 1)):
        kind = "application/json" if "/api/" in path else FORM
        async with await connect(served) as stream:
            await stream.send(head(served, path, kind, f"Content-Length: {length}"))
            with anyio.fail_after(20):
                status = b"408" if length == 9 else b"413"
                assert (await stream.receive()).startswith(b"HTTP/1.1 %b " % status)
    assert made == []


async def test_a_body_in_tiny_chunks_ends_the_connection_after_an_early_answer(served, monkeypatch):
    monkeypatch.setattr("pvemcp_server.http.connection.UNREAD_BODY_SECONDS", 60.0)
    async with await connect(served) as stream:
        await stream.send(head(served, "/admin/x", FORM, "Transfer-Encoding: chunked"))
        with anyio.fail_after(20):
            assert (await stream.receive()).startswith(b"HTTP/1.1 303 ")
            await stream.send(b"1\r\nx\r\n" * (UNREAD_BODY_PARTS + 1))
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await stream.receive()


@pytest.mark.parametrize(("path", "kind"), UPLOADS[:2])
async def test_200_mib_without_a_session_cost_no_memory(served, path, kind):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = 200 * 1024 * 1024
    async with await connect(served) as stream:
        await stream.send(head(served, path, kind, f"Content-Length: {size}"))
        with anyio.fail_after(60):
            assert (await stream.receive()).startswith(b"HTTP/1.1 413 ")
            try:
                for _ in range(size // 65536):
                    await stream.send(b"x" * 65536)
            except anyio.BrokenResourceError:
                pass  # the server has closed the connection
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 20 * 1024  # KiB


@pytest.mark.parametrize(("path", "kind"), UPLOADS[:2])
async def test_a_body_that_never_ends_gets_408(served, monkeypatch, path, kind):
    monkeypatch.setattr("pvemcp_server.http.bounded_request.BODY_SECONDS", 0.1)
    async with await connect(served) as stream:
        await stream.send(head(served, path, kind, "Content-Length: 999"))
        await stream.send(b"{")
        with anyio.fail_after(20):
            assert (await stream.receive()).startswith(b"HTTP/1.1 408 ")


async def test_the_rest_of_a_body_that_was_answered_early_is_not_awaited(served, monkeypatch):
    monkeypatch.setattr("pvemcp_server.http.connection.UNREAD_BODY_SECONDS", 0.1)
    async with await connect(served) as stream:
        await stream.send(head(served, "/mcp", "application/json", "Content-Length: 9") + b"{")
        with anyio.fail_after(20):
            assert (await stream.receive()).startswith(b"HTTP/1.1 401 ")
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()


@pytest.mark.parametrize(("path", "kind"), UPLOADS)
async def test_a_length_may_have_any_number_of_zeros(served, path, kind):
    async with await connect(served) as stream:
        await stream.send(head(served, path, kind, f"Content-Length: {'0' * 5_000}2") + b"{}")
        with anyio.fail_after(20):
            assert (await stream.receive()).startswith(b"HTTP/1.1 4")


async def test_a_body_that_follows_its_answer_leaves_the_connection_usable(served):
    async with await connect(served) as stream:
        await stream.send(head(served, "/mcp", "application/json", "Content-Length: 2"))
        with anyio.fail_after(20):
            assert (await stream.receive()).startswith(b"HTTP/1.1 401 ")
            await stream.send(b"{}GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await stream.receive()).startswith(b"HTTP/1.1 200 ")


async def send_forever(stream, request):
    while True:
        await stream.send(request)
        await anyio.sleep(0.001)


async def test_a_client_that_reads_nothing_of_a_page_is_dropped(served, monkeypatch):
    monkeypatch.setattr("pvemcp_server.http.connection.WRITE_SECONDS", 0.1)
    request = b"GET /admin/static/htmx.min.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with await connect(served) as stream:
        with anyio.fail_after(20), pytest.raises(anyio.BrokenResourceError):
            await send_forever(stream, request)


async def test_an_answer_that_began_is_completed_after_its_body():
    """Listen for the disconnect as streaming responses do: no limit ends them."""
    messages = iter([{"type": "http.request", "body": b"x" * 300_000, "more_body": True}])
    sent = []

    async def receive():
        return next(messages, {"type": "http.disconnect"})

    async def send(message):
        sent.append(message["type"])

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (await receive())["type"] != "http.disconnect":
            pass
        await send({"type": "http.response.body", "body": b""})

    await serve_bounded(app, {"type": "http", "headers": []}, receive, send)
    assert sent == ["http.response.start", "http.response.body"]


async def test_a_body_that_waits_to_be_taken_does_not_stop_what_follows_it(served, monkeypatch):
    """Answer a request when more of its body has arrived than is read ahead, as under load."""
    arrived, take, answer = anyio.Event(), HttpConnection.on_body, KeyGate.__call__

    def on_body(connection, body):
        take(connection, body)
        if len(connection.cycle.body) > READ_BYTES:
            arrived.set()

    async def answer_then(*exchange):
        await arrived.wait()
        await answer(*exchange)

    monkeypatch.setattr(HttpConnection, "on_body", on_body)
    body = b"x" * 5 * READ_BYTES
    async with await connect(served) as stream:
        monkeypatch.setattr(KeyGate, "__call__", answer_then)
        length = f"Content-Length: {len(body)}"
        await stream.send(head(served, "/mcp", "application/json", length) + body)
        with anyio.fail_after(20):
            assert (await stream.receive()).startswith(b"HTTP/1.1 401 ")
            await stream.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await stream.receive()).startswith(b"HTTP/1.1 200 ")
