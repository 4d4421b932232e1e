"""The eras with a handshake: lost and renewed sessions, the session stream, server requests."""

import asyncio
import json

import pytest

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

QUESTION = {
    "jsonrpc": "2.0",
    "id": "q1",
    "method": "elicitation/create",
    "params": {"message": "?"},
}
CHANGED = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}


@pytest.mark.parametrize("version", ["2025-03-26", "2025-06-18", "2025-11-25"])
async def test_messages_have_session_and_version_headers(legacy, server, version):
    reply = await legacy.initialize(version)
    assert reply["result"]["protocolVersion"] == version
    await legacy.reply(legacy.request("ping"))
    first, initialized, ping = (
        server.of("initialize") + server.of("notifications/initialized") + (server.of("ping"))
    )
    assert "mcp-session-id" not in first.headers
    for later in (initialized, ping):
        assert later.headers["mcp-session-id"] == "session-1"
        assert later.headers["mcp-protocol-version"] == version
        assert later.headers["accept"] == "application/json, text/event-stream"


async def test_messages_sent_in_one_go_wait_for_the_handshake(legacy, server):
    client = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x"}}
    first = legacy.request("initialize", client)
    legacy.notify("notifications/initialized")
    second = legacy.request("tools/list")
    assert "result" in await legacy.reply(first)
    assert "result" in await legacy.reply(second)
    methods = [name for name in server.names() if name != "GET"]
    assert methods == ["initialize", "notifications/initialized", "tools/list"]


async def test_a_restarted_server_gets_one_handshake_for_all_calls(legacy, server):
    await legacy.open()
    await server.restart()
    numbers = [legacy.call("destroy", {"n": n}) for n in range(20)]
    replies = [await legacy.read() for _ in numbers]
    assert sorted(reply["id"] for reply in replies) == numbers
    assert all("result" in reply for reply in replies)
    assert len(server.of("initialize")) == 2
    assert len(server.of("notifications/initialized")) == 2
    assert await legacy.end() == ([], 0)


async def test_calls_during_a_restart_succeed_when_the_server_is_back(bridge, server):
    await bridge.open()
    await server.stop()
    number = bridge.call("destroy")
    back = asyncio.create_task(_start_later(server))
    assert "result" in await bridge.reply(number)
    await back


async def _start_later(server):
    await asyncio.sleep(1.5)  # the time a server is away
    await server.start()


async def test_a_rejected_renewal_of_the_session_is_reported(legacy, server, faults):
    await legacy.open()
    server.sessions.clear()
    refusal = {"jsonrpc": "2.0", "id": None, "error": {"code": -32000, "message": "full"}}
    server.fail("initialize", faults.status(200, refusal, content_type="application/json"))
    error = (await legacy.reply(legacy.call("look")))["error"]
    assert "did not open a new session" in error["message"]
    assert "result" in await legacy.reply(legacy.call("look"))


async def test_a_call_interrupted_by_a_restart_is_lost_and_not_retried(legacy, server):
    await legacy.open()
    here = asyncio.Event()

    async def hang(call):
        here.set()
        await call.hung_up()

    server.fail("tools/call", hang)
    number = legacy.call("destroy")
    await here.wait()
    await server.restart()
    assert (await legacy.reply(number))["error"]["data"]["reason"] == "Lost"
    assert len(server.of("tools/call")) == 1


async def test_a_client_may_repeat_the_handshake(legacy, server):
    await legacy.open()
    await legacy.initialize()
    await legacy.reply(legacy.request("ping"))
    assert server.of("ping")[0].headers["mcp-session-id"] == "session-2"
    assert server.of("DELETE")[0].headers["mcp-session-id"] == "session-1"


async def test_the_session_stream_delivers_notifications_and_requests(legacy, server):
    async def speak(call):
        await call.stream()
        await call.event(CHANGED)
        await call.event(QUESTION)
        await call.hung_up()

    server.fail("GET", speak)
    await legacy.initialize()
    assert await legacy.read() == CHANGED
    assert await legacy.read() == QUESTION
    legacy.send({"jsonrpc": "2.0", "id": "q1", "result": {"action": "accept"}})
    response = await server.until("response")
    assert response.message["result"] == {"action": "accept"}
    assert response.headers["mcp-session-id"] == "session-1"


async def test_a_reply_on_the_session_stream_is_ignored(legacy, server):
    async def speak(call):
        await call.stream()
        await call.event({"jsonrpc": "2.0", "id": 1, "result": {"stray": True}})
        await call.event(CHANGED)
        await call.hung_up()

    server.fail("GET", speak)
    await legacy.initialize()
    assert await legacy.read() == CHANGED


async def test_the_session_stream_reconnects_after_it_broke(legacy, server, faults):
    async def once(call):
        await call.stream()
        await call.event(CHANGED, event_id="e7")
        call.drop()

    async def again(call):
        await call.stream()
        await call.event(CHANGED)
        await call.hung_up()

    server.fail("GET", once)
    server.fail("GET", faults.status(503))
    server.fail("GET", again)
    await legacy.initialize()
    assert [await legacy.read(), await legacy.read()] == [CHANGED, CHANGED]
    assert len(server.of("GET")) == 3


async def test_the_session_of_an_idle_client_is_renewed_after_a_restart(legacy, server):
    async def wait(call):
        await call.stream()
        await call.hung_up()

    server.fail("GET", wait)
    await legacy.open()
    await server.until("GET")

    async def gone(call):
        await call.answer(404)

    server.fail("GET", gone)
    server.fail("GET", wait)
    await server.restart()
    await server.until("GET", 3)
    assert len(server.of("initialize")) == 2


async def test_an_elicitation_arrives_on_the_stream_of_the_call(legacy, server):
    async def ask(call):
        await call.stream()
        await call.event(QUESTION)
        answer = await server.until("response")
        reply = {"jsonrpc": "2.0", "id": call.id, "result": answer.message["result"]}
        await call.event(reply)
        await call.end()

    await legacy.open()
    server.fail("tools/call", ask)
    number = legacy.call("destroy")
    assert await legacy.read() == QUESTION
    legacy.send({"jsonrpc": "2.0", "id": "q1", "result": {"action": "decline"}})
    assert (await legacy.reply(number))["result"] == {"action": "decline"}


async def test_a_stream_that_ends_early_is_resumed(legacy, server):
    async def begin(call):
        await call.stream()
        await call.event(raw=b"id: e1\nretry: 10\ndata:\n\n")
        await call.end()
        server.fail("GET", go_on(call.id))

    def go_on(number):
        async def fault(call):
            await call.stream()
            await call.event({"jsonrpc": "2.0", "id": number, "result": {"resumed": True}})
            await call.hung_up()

        return fault

    await legacy.open()
    await server.until("GET")
    server.fail("tools/call", begin)
    assert (await legacy.reply(legacy.call("destroy")))["result"] == {"resumed": True}
    assert server.of("GET")[-1].headers["last-event-id"] == "e1"
    assert len(server.of("tools/call")) == 1


async def test_a_reply_that_a_restarted_server_forgot_is_lost(legacy, server):
    async def begin(call):
        await call.stream()
        await call.event(raw=b"id: e1\nretry: 10\ndata:\n\n")
        await call.end()
        server.sessions.clear()

    async def gone(call):
        await call.answer(404)

    await legacy.open()
    await server.until("GET")
    server.fail("tools/call", begin)
    server.fail("GET", gone)
    error = (await legacy.reply(legacy.call("destroy")))["error"]
    assert error["data"]["reason"] == "Lost"
    assert len(server.of("tools/call")) == 1


async def test_a_cancelled_call_is_cancelled_at_the_server_without_a_reply(legacy, server):
    async def until_cancelled(call):
        await call.stream()
        await server.until("notifications/cancelled")
        late = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": 9}}
        await call.event(late)
        error = {"code": -32800, "message": "cancelled"}
        await call.event({"jsonrpc": "2.0", "id": call.id, "error": error})
        await call.end()

    await legacy.open()
    server.fail("tools/call", until_cancelled)
    number = legacy.call("destroy")
    await server.until("tools/call")
    legacy.notify("notifications/cancelled", {"requestId": number})
    cancelled = await server.until("notifications/cancelled")
    assert cancelled.message["params"] == {"requestId": number}
    assert "result" in await legacy.reply(legacy.request("ping"))
    assert await legacy.end() == ([], 0)


async def test_progress_and_log_messages_come_before_the_reply(bridge, server):
    notes = [
        {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": 1}},
        {"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "half"}},
    ]

    async def talk(call):
        await call.stream()
        for note in notes:
            await call.event(note)
        await call.event({"jsonrpc": "2.0", "id": call.id, "result": {}})
        await call.end()

    await bridge.open()
    server.fail("tools/call", talk)
    number = bridge.call("destroy")
    assert [await bridge.read(), await bridge.read()] == notes
    assert (await bridge.reply(number))["result"] == {}


async def test_both_eras_mix_in_one_process(legacy, server):
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    discovered = await legacy.reply(legacy.request("server/discover", {"_meta": meta}))
    assert discovered["result"]["supportedVersions"] == ["2026-07-28"]
    await legacy.initialize()
    await legacy.reply(legacy.request("tools/list", {"_meta": meta}))
    await legacy.reply(legacy.request("tools/list"))
    modern, handshake = server.of("tools/list")
    assert modern.headers["mcp-protocol-version"] == "2026-07-28"
    assert "mcp-session-id" not in modern.headers
    assert handshake.headers["mcp-protocol-version"] == "2025-11-25"
    assert handshake.headers["mcp-session-id"] == "session-1"


async def test_an_undeliverable_notification_only_appears_in_the_log(bridges, server, faults):
    async with bridges.running("--url", server.url) as legacy:
        await legacy.open()
        server.fail("notifications/roots/list_changed", faults.status(400, b"unknown"))
        legacy.notify("notifications/roots/list_changed")
        await server.until("notifications/roots/list_changed")
        assert await legacy.end() == ([], 0)
        assert "was not delivered" in legacy.log
        assert json.dumps("unknown") in legacy.log
