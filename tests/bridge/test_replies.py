"""Every request gets exactly one reply, with what happened and what to do."""

import asyncio
import email.utils
import gzip
import json
import time
import zlib

import pytest

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]


async def failed(bridge, tool="destroy"):
    """The error of one call, after which the bridge still answers, once each."""
    reply = await bridge.reply(bridge.call(tool))
    assert (await bridge.reply(bridge.ask("tools/list")))["result"]["tools"]
    rest, code = await bridge.end()
    assert (rest, code) == ([], 0)
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
        (502, "reached no server"),
        (503, "not available"),
        (504, "no answer in time"),
    ],
)
async def test_an_http_status_is_told_with_what_to_do(bridge, server, faults, status, words):
    await bridge.open()
    server.fail("tools/call", faults.status(status, b"oops"), 9)
    error = await failed(bridge)
    assert error["code"] == -32603
    assert words in error["message"]
    assert "oops" in error["message"]
    assert error["data"]["status"] == status
    assert error["data"]["hint"] in error["message"]


async def test_a_json_rpc_error_is_passed_on_whatever_its_status(bridge, server, faults):
    await bridge.open()
    said = {"code": -32099, "message": "no", "data": {"why": [1]}}
    body = {"jsonrpc": "2.0", "id": None, "error": said}
    server.fail("tools/call", faults.status(418, body, content_type="application/json"))
    assert await failed(bridge) == said


async def test_429_is_repeated_after_the_pause_the_server_asks_for(bridge, server, faults):
    await bridge.open()
    server.fail("tools/call", faults.status(429, headers={"retry-after": "1"}))
    reply = await bridge.reply(bridge.call("destroy", {"a": 1}))
    assert json.loads(reply["result"]["content"][0]["text"]) == {"a": 1}
    assert len(server.of("tools/call")) == 2


async def test_429_with_a_pause_beyond_patience_is_told(bridge, server, faults):
    await bridge.open()
    server.fail("tools/call", faults.status(429, headers={"retry-after": "3600"}))
    error = await failed(bridge)
    assert error["data"]["status"] == 429
    assert error["data"]["retry_after_seconds"] == 3600
    assert "Try again in 3600 s" in error["message"]
    assert len(server.of("tools/call")) == 1


@pytest.mark.parametrize(("seconds", "calls"), [(1, 2), (3600, 1)], ids=["soon", "far away"])
async def test_the_pause_may_be_given_as_a_date(bridge, server, faults, seconds, calls):
    await bridge.open()
    date = email.utils.formatdate(time.time() + seconds, usegmt=True)
    server.fail("tools/call", faults.status(429, headers={"retry-after": date}))
    reply = await bridge.reply(bridge.call("destroy"))
    assert ("result" in reply) == (calls == 2)
    assert len(server.of("tools/call")) == calls


async def test_503_is_repeated_for_a_call_that_does_no_harm_twice(bridge, server, faults):
    await bridge.open()
    server.fail("tools/call", faults.status(503), 2)
    assert "result" in await bridge.reply(bridge.call("look"))
    assert len(server.of("tools/call")) == 3


@pytest.mark.parametrize("fault", ["drop", "ends_without_reply"])
async def test_a_lost_reply_is_told_and_a_harmful_call_never_repeated(
    bridge, server, faults, fault
):
    await bridge.open()
    server.fail("tools/call", getattr(faults, fault))
    number = bridge.call("destroy")
    messages = [await bridge.next()]
    while "id" not in messages[-1]:
        messages.append(await bridge.next())
    error = messages[-1]["error"]
    assert messages[-1]["id"] == number
    assert "may or may not have been carried out" in error["message"]
    assert error["data"]["reason"] == "Lost"
    assert len(server.of("tools/call")) == 1


@pytest.mark.parametrize("tool", ["look", "set"])
async def test_a_harmless_call_is_repeated_when_its_reply_is_lost(bridge, server, faults, tool):
    await bridge.open()
    server.fail("tools/call", faults.drop)
    assert "result" in await bridge.reply(bridge.call(tool))
    assert len(server.of("tools/call")) == 2


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
async def test_a_reply_that_is_no_json_rpc_is_told(bridge, server, faults, body, content_type):
    await bridge.open()
    server.fail("tools/call", faults.status(200, body, content_type=content_type))
    error = await failed(bridge)
    assert error["data"]["reason"] == "NoReply"
    assert error["data"]["status"] == 200


async def test_of_several_replies_in_a_stream_the_one_that_is_meant_counts_once(bridge, server):
    async def confused(call):
        await call.stream()
        for number, text in (("of another", "no"), (call.id, "yes"), (call.id, "again")):
            await call.event({"jsonrpc": "2.0", "id": number, "result": {"text": text}})
        await call.end()

    await bridge.open()
    server.fail("tools/call", confused)
    assert (await bridge.reply(bridge.call("destroy")))["result"] == {"text": "yes"}
    assert await bridge.end() == ([], 0)


async def test_of_several_replies_in_a_body_the_first_counts(bridge, server):
    async def twice(call):
        replies = [{"jsonrpc": "2.0", "id": call.id, "result": {"n": n}} for n in (1, 2)]
        await call.answer(200, replies)

    await bridge.open()
    server.fail("tools/call", twice)
    assert (await bridge.reply(bridge.call("destroy")))["result"] == {"n": 1}
    assert await bridge.end() == ([], 0)


async def test_an_id_used_again_while_its_request_is_under_way_gets_both_replies(bridge, server):
    await bridge.open()
    both = asyncio.Barrier(2)

    async def together(call):
        await both.wait()
        await call.result({"tool": call.message["params"]["name"]})

    server.fail("tools/call", together, 2)
    number = bridge.call("look")
    params = server.calls[-1].message["params"] | {"name": "set"}
    bridge.send({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})
    replies = [await bridge.reply(number) for _ in range(2)]
    assert {reply["result"]["tool"] for reply in replies} == {"look", "set"}
    assert await bridge.end() == ([], 0)


ENCODINGS = {"gzip": gzip.compress, "deflate": zlib.compress}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("streamed", [False, True], ids=["body", "stream"])
async def test_a_compressed_answer_is_read(bridge, server, encoding, streamed):
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

    await bridge.open()
    server.fail("tools/call", compressed)
    assert (await bridge.reply(bridge.call("destroy")))["result"] == {"text": "grün" * 1000}
    assert await bridge.end() == ([], 0)


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
async def test_a_broken_answer_is_told_lost(bridge, server, fault):
    await bridge.open()
    server.fail("tools/call", fault)
    error = await failed(bridge)
    assert error["data"]["reason"] == "Lost"
    assert len(server.of("tools/call")) == 1


async def test_silence_is_told_after_the_timeout(bridges, server, faults, modern):
    options = ("--url", server.url, "--timeout", "0.3")
    async with bridges.running(*options, modern=modern) as bridge:
        await bridge.open()
        server.fail("tools/call", faults.silent)
        error = await failed(bridge)
    assert error["data"]["reason"] == "Silent"
    assert "--timeout" in error["message"]


async def test_comments_of_a_stream_keep_a_long_call_alive(bridges, server, modern):
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


async def test_a_refused_connection_is_told_when_patience_ends(bridge, server):
    await bridge.open()
    await server.stop()
    error = (await bridge.reply(bridge.call("destroy")))["error"]
    assert error["data"]["reason"] == "Unreachable"
    assert "Check that the server runs" in error["message"]
    await server.start()
    assert "result" in await bridge.reply(bridge.call("look"))


async def test_many_requests_under_way_at_once_are_each_answered_once(bridge, server):
    await bridge.open()
    numbers = [bridge.call("look", {"n": n}) for n in range(200)]
    replies = [await bridge.next() for _ in numbers]
    assert sorted(reply["id"] for reply in replies) == numbers
    assert all("result" in reply for reply in replies)
    assert await bridge.end() == ([], 0)
