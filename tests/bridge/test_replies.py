"""Every request gets exactly one reply, with what happened and what to do."""

import asyncio
import json

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
