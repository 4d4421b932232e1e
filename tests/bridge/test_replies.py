"""Every request gets exactly one reply; an error has the fact and the next step."""

import asyncio
import contextlib
import email.utils
import gzip
import json
import time
import zlib

import pytest

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]


async def failed_call(bridge):
    """Make a call that fails; return its error after the next request got its one reply."""
    reply = await bridge.reply(bridge.call("destroy"))
    assert (await bridge.reply(bridge.request("tools/list")))["result"]["tools"]
    return reply["error"]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "malformed"),
        (401, "API key"),
        (403, "not allow"),
        (404, "nothing at this URL"),
        (413, "too large"),
        (500, "server failed"),
        (502, "cannot reach the server"),
        (503, "not available"),
        (504, "got no answer"),
    ],
)
async def test_an_http_error_is_reported_with_a_hint(
    shared_bridge, shared_server, faults, status, words
):
    shared_server.fail("tools/call", faults.status(status, b"oops"), 9)
    error = await failed_call(shared_bridge)
    assert error["code"] == -32603
    assert words in error["message"]
    assert "oops" in error["message"]
    assert error["data"]["status"] == status
    assert error["data"]["hint"] in error["message"]


async def test_a_json_rpc_error_is_forwarded_with_any_http_status(
    shared_bridge, shared_server, faults
):
    sent = {"code": -32099, "message": "no", "data": {"why": [1]}}
    body = {"jsonrpc": "2.0", "id": None, "error": sent}
    shared_server.fail("tools/call", faults.status(418, body, content_type="application/json"))
    assert await failed_call(shared_bridge) == sent


async def test_429_is_retried_after_the_retry_after_time(shared_bridge, shared_server, faults):
    shared_server.fail("tools/call", faults.status(429, headers={"retry-after": "1"}))
    reply = await shared_bridge.reply(shared_bridge.call("destroy", {"a": 1}))
    assert json.loads(reply["result"]["content"][0]["text"]) == {"a": 1}
    assert len(shared_server.of("tools/call")) == 2


async def test_429_with_a_long_retry_after_is_reported(shared_bridge, shared_server, faults):
    shared_server.fail("tools/call", faults.status(429, headers={"retry-after": "3600"}))
    error = await failed_call(shared_bridge)
    assert error["data"]["status"] == 429
    assert error["data"]["retry_after_seconds"] == 3600
    assert "Try again in 3600 s" in error["message"]
    assert len(shared_server.of("tools/call")) == 1


@pytest.mark.parametrize(("seconds", "calls"), [(1, 2), (3600, 1)], ids=["soon", "far away"])
async def test_retry_after_may_be_a_date(shared_bridge, shared_server, faults, seconds, calls):
    date = email.utils.formatdate(time.time() + seconds, usegmt=True)
    shared_server.fail("tools/call", faults.status(429, headers={"retry-after": date}))
    reply = await shared_bridge.reply(shared_bridge.call("destroy"))
    assert ("result" in reply) == (calls == 2)
    assert len(shared_server.of("tools/call")) == calls


async def test_503_is_retried_for_an_idempotent_call(shared_bridge, shared_server, faults):
    shared_server.fail("tools/call", faults.status(503), 2)
    assert "result" in await shared_bridge.reply(shared_bridge.call("look"))
    assert len(shared_server.of("tools/call")) == 3


@pytest.mark.parametrize("fault", ["drop", "ends_without_reply"])
async def test_a_lost_reply_is_reported_and_a_write_is_not_retried(
    shared_bridge, shared_server, faults, fault
):
    shared_server.fail("tools/call", getattr(faults, fault))
    number = shared_bridge.call("destroy")
    messages = [await shared_bridge.read()]
    while "id" not in messages[-1]:
        messages.append(await shared_bridge.read())
    error = messages[-1]["error"]
    assert messages[-1]["id"] == number
    assert "may or may not have been carried out" in error["message"]
    assert error["data"]["reason"] == "Lost"
    assert len(shared_server.of("tools/call")) == 1


@pytest.mark.parametrize("tool", ["look", "set"])
async def test_an_idempotent_call_is_retried_when_its_reply_is_lost(
    shared_bridge, shared_server, faults, tool
):
    shared_server.fail("tools/call", faults.drop)
    assert "result" in await shared_bridge.reply(shared_bridge.call(tool))
    assert len(shared_server.of("tools/call")) == 2


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"<html>welcome</html>", "text/html"),
        (b"plainly not", "application/json"),
        (b"", "application/json"),
        (b"\xff\xfe", "application/json"),
        (b'{"a": 1}', "application/json"),
        (b'{"jsonrpc": "2.0", "id": "of another", "result": {}}', "application/json"),
    ],
    ids=["page", "text", "empty", "not UTF-8", "not JSON-RPC", "other id"],
)
async def test_a_reply_that_is_not_json_rpc_is_reported(
    shared_bridge, shared_server, faults, body, content_type
):
    shared_server.fail("tools/call", faults.status(200, body, content_type=content_type))
    error = await failed_call(shared_bridge)
    assert error["data"]["reason"] == "NoReply"
    assert error["data"]["status"] == 200


async def test_the_matching_reply_in_a_stream_is_delivered_once(shared_bridge, shared_server):
    async def confused(call):
        await call.stream()
        for number, text in (("of another", "no"), (call.id, "yes"), (call.id, "again")):
            await call.event({"jsonrpc": "2.0", "id": number, "result": {"text": text}})
        await call.end()

    shared_server.fail("tools/call", confused)
    assert (await shared_bridge.reply(shared_bridge.call("destroy")))["result"] == {"text": "yes"}


async def test_the_first_reply_in_a_body_is_delivered(shared_bridge, shared_server):
    async def twice(call):
        replies = [{"jsonrpc": "2.0", "id": call.id, "result": {"n": n}} for n in (1, 2)]
        await call.answer(200, replies)

    shared_server.fail("tools/call", twice)
    assert (await shared_bridge.reply(shared_bridge.call("destroy")))["result"] == {"n": 1}


async def test_an_id_reused_by_a_pending_request_gets_both_replies(shared_bridge, shared_server):
    both = asyncio.Barrier(2)

    async def together(call):
        await both.wait()
        await call.result({"tool": call.message["params"]["name"]})

    shared_server.fail("tools/call", together, 2)
    number = shared_bridge.call("look")
    first = await shared_server.until("tools/call")
    params = first.message["params"] | {"name": "set"}
    shared_bridge.send({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})
    replies = [await shared_bridge.reply(number) for _ in range(2)]
    assert {reply["result"]["tool"] for reply in replies} == {"look", "set"}


ENCODINGS = {"gzip": gzip.compress, "deflate": zlib.compress}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("streamed", [False, True], ids=["body", "stream"])
async def test_a_compressed_response_is_read(shared_bridge, shared_server, encoding, streamed):
    async def compressed(call):
        assert encoding in call.headers["accept-encoding"]
        body = json.dumps({"jsonrpc": "2.0", "id": call.id, "result": {"text": "grün" * 1000}})
        head = {"content-encoding": encoding}
        if not streamed:
            await call.answer(200, ENCODINGS[encoding](body.encode()), head)
            return
        await call.stream(head)
        await call.piece(ENCODINGS[encoding](f"data: {body}\n\n".encode()))
        await call.end()

    shared_server.fail("tools/call", compressed)
    assert (await shared_bridge.reply(shared_bridge.call("destroy")))["result"] == {
        "text": "grün" * 1000
    }


async def half_a_body(call):
    call.writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
    call.writer.write(b'content-length: 1000\r\n\r\n{"jsonrpc": "2.0", ')
    call.writer.close()


async def half_a_chunk(call):
    await call.stream()
    call.writer.write(b'ff\r\ndata: {"jsonrpc"')
    call.writer.close()


async def no_chunk_size(call):
    await call.stream()
    call.writer.write(b"many bytes\r\n")
    call.writer.close()


async def no_http(call):
    call.writer.write(b"220 smtp.example ready\r\n")
    call.writer.close()


async def no_gzip(call):
    await call.answer(200, b"plainly not", {"content-encoding": "gzip"})


@pytest.mark.parametrize("fault", [half_a_body, half_a_chunk, no_chunk_size, no_http, no_gzip])
async def test_a_broken_response_is_reported_as_lost(shared_bridge, shared_server, fault):
    shared_server.fail("tools/call", fault)
    error = await failed_call(shared_bridge)
    assert error["data"]["reason"] == "Lost"
    assert len(shared_server.of("tools/call")) == 1


async def test_the_read_timeout_is_reported(bridges, server, faults, modern):
    options = ("--url", server.url, "--timeout", "0.3")
    async with bridges.running(*options, modern=modern) as bridge:
        await bridge.open()
        server.fail("tools/call", faults.silent)
        error = await failed_call(bridge)
    assert error["data"]["reason"] == "Silent"
    assert "--timeout" in error["message"]


async def test_comments_in_a_stream_keep_a_long_call_alive(bridges, server, modern):
    async def slow(call):
        await call.stream()
        for _ in range(5):
            await call.piece(b": still here\n\n")
            await asyncio.sleep(0.2)
        await call.event({"jsonrpc": "2.0", "id": call.id, "result": {"late": True}})
        await call.end()

    options = ("--url", server.url, "--timeout", "0.6")
    async with bridges.running(*options, modern=modern) as bridge:
        await bridge.open()
        server.fail("tools/call", slow)
        assert (await bridge.reply(bridge.call("destroy")))["result"] == {"late": True}


async def test_a_refused_connection_is_reported_after_the_retries(bridges, server):
    async with bridges.running("--url", server.url, short_retries=True) as bridge:
        await bridge.open()
        await server.stop()
        start = time.monotonic()
        error = (await bridge.reply(bridge.call("destroy")))["error"]
        assert time.monotonic() - start > 1
        assert error["data"]["reason"] == "Unreachable"
        assert "Check that the server runs" in error["message"]
        await server.start()
        assert "result" in await bridge.reply(bridge.call("look"))


async def test_concurrent_requests_each_get_one_reply(shared_bridge, shared_server):
    numbers = [shared_bridge.call("look", {"n": n}) for n in range(200)]
    replies = [await shared_bridge.read() for _ in numbers]
    assert sorted(reply["id"] for reply in replies) == numbers
    assert all("result" in reply for reply in replies)


MIB = 1 << 20


async def endless_event(call):
    await call.stream()
    await endless(call, [b"data: " + b"x" * MIB + b"\n"] * 100)


async def endless_from_little(call):
    head = {"content-type": "application/json", "content-encoding": "gzip"}
    await call._head(200, head | {"transfer-encoding": "chunked"})
    packer = zlib.compressobj(wbits=31)
    await endless(call, [packer.compress(b" " * MIB) for _ in range(100)])


async def endless(call, pieces):
    """Send pieces until the bridge closes the connection."""
    with contextlib.suppress(ConnectionError):
        for piece in filter(None, pieces):
            await call.piece(piece)
    await call.hung_up()


@pytest.mark.parametrize("fault", [endless_event, endless_from_little])
async def test_a_reply_without_end_is_reported_and_not_kept(shared_bridge, shared_server, fault):
    shared_server.fail("tools/call", fault)
    error = await failed_call(shared_bridge)
    assert error["data"]["reason"] == "NoReply"
    assert "longer than 64 MiB" in error["message"]


LITTLE = gzip.compress(b"{}")
HOSTILE = {
    "encoded twice": ("gzip, gzip", gzip.compress(LITTLE + bytes(MIB))),
    "another encoding": ("br", LITTLE),
    "more after the end": ("gzip", LITTLE + bytes(MIB)),
}


@pytest.mark.parametrize("case", HOSTILE)
async def test_a_compressed_reply_is_decompressed_once_and_to_its_end(
    shared_bridge, shared_server, case
):
    encoding, body = HOSTILE[case]

    async def answer(call):
        await call.answer(200, body, {"content-encoding": encoding})

    shared_server.fail("tools/call", answer)
    assert (await failed_call(shared_bridge))["data"]["reason"] == "Lost"
