"""The era without sessions: mirrored headers, cancellation, subscriptions."""

import asyncio
import base64

import pytest

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

META_ID = "io.modelcontextprotocol/subscriptionId"
PLACES = {
    "name": "place",
    "inputSchema": {
        "type": "object",
        "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "deep": {
                "type": "object",
                "properties": {"count": {"type": "integer", "x-mcp-header": "Count"}},
            },
            "dry": {"type": "boolean", "x-mcp-header": "Dry"},
        },
    },
}


def listing(*tools):
    async def answer(call):
        await call.result({"tools": list(tools)})

    return answer


def headers_of(call, prefix="mcp-"):
    return {name: value for name, value in call.headers.items() if name.startswith(prefix)}


@pytest.mark.parametrize(
    ("method", "params", "name"),
    [
        ("server/discover", {}, None),
        ("tools/call", {"name": "look"}, "look"),
        ("prompts/get", {"name": "plan"}, "plan"),
        ("resources/read", {"uri": "pve://a/b"}, "pve://a/b"),
        ("tasks/get", {"taskId": "t1"}, "t1"),
        ("tools/call", {"name": "grün"}, "=?base64?Z3LDvG4=?="),
        ("tools/call", {"name": " blank "}, "=?base64?IGJsYW5rIA==?="),
        ("tools/call", {"name": "=?base64?eA==?="}, "=?base64?PT9iYXNlNjQ/ZUE9PT89?="),
    ],
)
async def test_headers_mirror_the_body(shared_stateless, shared_server, method, params, name):
    await shared_stateless.reply(shared_stateless.request(method, params))
    expected = {"mcp-protocol-version": "2026-07-28", "mcp-method": method}
    assert headers_of(shared_server.calls[0]) == expected | ({"mcp-name": name} if name else {})


async def test_annotated_arguments_are_also_sent_as_headers(shared_stateless, shared_server):
    shared_server.fail("tools/list", listing(PLACES))
    await shared_stateless.open()
    arguments = {"region": "süd", "deep": {"count": 3}, "dry": True, "other": "x"}
    await shared_stateless.reply(shared_stateless.call("place", arguments))
    await shared_stateless.reply(shared_stateless.call("place", {"region": None}))
    first, second = shared_server.of("tools/call")
    assert headers_of(first, "mcp-param-") == {
        "mcp-param-region": f"=?base64?{base64.b64encode('süd'.encode()).decode()}?=",
        "mcp-param-count": "3",
        "mcp-param-dry": "true",
    }
    assert headers_of(second, "mcp-param-") == {}


async def test_a_header_mismatch_is_fixed_by_fetching_the_tool_list(stateless, server):
    async def mismatch(call):
        error = {"code": -32020, "message": "headers"}
        await call.answer(400, {"jsonrpc": "2.0", "id": call.id, "error": error})

    server.fail("tools/call", mismatch)
    server.fail("tools/list", listing(PLACES))
    assert "result" in await stateless.reply(stateless.call("place", {"region": "eu"}))
    assert server.names() == ["tools/call", "tools/list", "tools/call"]
    assert server.calls[2].headers["mcp-param-region"] == "eu"


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"type": "number", "x-mcp-header": "A"}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": "A b"}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": ""}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": 3}}},
        {
            "properties": {
                "a": {"type": "string", "x-mcp-header": "A"},
                "b": {"type": "string", "x-mcp-header": "a"},
            }
        },
        {"properties": {"a": {"items": {"type": "string", "x-mcp-header": "A"}}}},
        {"x-mcp-header": "A", "type": "object"},
        {"properties": {"a": {"anyOf": [{"type": "string", "x-mcp-header": "A"}]}}},
        {"$defs": {"a": {"type": "string", "x-mcp-header": "A"}}},
    ],
    ids=["number", "blank", "empty", "no text", "twice", "item", "root", "choice", "definition"],
)
async def test_tools_with_invalid_annotations_are_not_offered(
    shared_stateless, shared_server, schema
):
    bad = {"name": "bad", "inputSchema": {"type": "object"} | schema}
    fine = {"name": "fine", "inputSchema": {"default": {"x-mcp-header": "data"}}}
    shared_server.fail("tools/list", listing(fine, bad, PLACES))
    shared_stateless.log = ""
    assert await shared_stateless.open() == [fine, PLACES]
    await shared_stateless.wait_for_log("'bad' is not offered")


async def test_an_invalid_annotation_is_ignored_in_the_legacy_eras(legacy, server):
    bad = {"name": "bad", "inputSchema": {"x-mcp-header": "A"}}
    server.fail("tools/list", listing(bad))
    assert await legacy.open() == [bad]


async def test_cancelling_closes_the_connection_without_a_reply(stateless, server):
    closed = asyncio.Event()

    async def hang(call):
        await call.stream()
        await call.hung_up()
        closed.set()

    server.fail("tools/call", hang)
    number = stateless.call("destroy")
    await server.until("tools/call")
    stateless.notify("notifications/cancelled", {"requestId": number})
    async with asyncio.timeout(5):
        await closed.wait()
    assert server.names() == ["tools/call"]
    assert await stateless.end() == ([], 0)


async def test_the_stateless_era_uses_no_stream_and_no_session(stateless, server):
    await stateless.open()
    stateless.notify("notifications/progress", {"progressToken": 1, "progress": 1})
    notification = await server.until("notifications/progress")
    assert notification.headers["mcp-method"] == "notifications/progress"
    assert await stateless.end() == ([], 0)
    assert server.names() == ["tools/list", "notifications/progress"]


class Listening:
    """A subscription on the side of the server."""

    def __init__(self, call):
        self.call = call
        self.meta = {META_ID: call.id}

    async def acknowledge(self):
        requested = self.call.message["params"]["notifications"]
        await self.call.stream()
        await self.note("notifications/subscriptions/acknowledged", notifications=requested)

    async def note(self, method, **params):
        params["_meta"] = self.meta
        await self.call.event({"jsonrpc": "2.0", "method": method, "params": params})


REQUESTED = {"toolsListChanged": True, "resourceSubscriptions": ["pve://x"]}


def expected_note(number, method, **params):
    params["_meta"] = {META_ID: number}
    return {"jsonrpc": "2.0", "method": method, "params": params}


async def test_a_subscription_delivers_its_notifications_and_its_end(stateless, server):
    async def serve(call):
        listening = Listening(call)
        await listening.acknowledge()
        await listening.note("notifications/tools/list_changed")
        result = {"_meta": listening.meta, "resultType": "complete"}
        await call.event({"jsonrpc": "2.0", "id": call.id, "result": result})
        await call.end()

    server.fail("subscriptions/listen", serve)
    number = stateless.request("subscriptions/listen", {"notifications": REQUESTED})
    acknowledged = await stateless.read()
    assert acknowledged["method"] == "notifications/subscriptions/acknowledged"
    assert await stateless.read() == expected_note(number, "notifications/tools/list_changed")
    assert (await stateless.reply(number))["result"]["resultType"] == "complete"


async def test_a_broken_subscription_is_renewed_with_possible_changes(stateless, server):
    async def breaks(call):
        await Listening(call).acknowledge()
        call.drop()

    async def lasts(call):
        await Listening(call).acknowledge()
        await call.hung_up()

    server.fail("subscriptions/listen", breaks)
    server.fail("subscriptions/listen", lasts)
    number = stateless.request("subscriptions/listen", {"notifications": REQUESTED})
    assert (await stateless.read())["method"] == "notifications/subscriptions/acknowledged"
    assert await stateless.read() == expected_note(number, "notifications/tools/list_changed")
    assert await stateless.read() == expected_note(
        number, "notifications/resources/updated", uri="pve://x"
    )
    assert len(server.of("subscriptions/listen")) == 2
    assert await stateless.end() == ([], 0)


async def test_a_subscription_that_cannot_be_renewed_is_cancelled(stateless, server, faults):
    async def breaks(call):
        await Listening(call).acknowledge()
        call.drop()

    server.fail("subscriptions/listen", breaks)
    server.fail("subscriptions/listen", faults.status(401))
    number = stateless.request("subscriptions/listen", {"notifications": REQUESTED})
    await stateless.read()
    over = await stateless.read()
    assert over["method"] == "notifications/cancelled"
    assert over["params"]["requestId"] == number
    assert await stateless.end() == ([], 0)


async def test_a_rejected_subscription_gets_an_error(stateless, server, faults):
    server.fail("subscriptions/listen", faults.status(403))
    number = stateless.request("subscriptions/listen", {"notifications": REQUESTED})
    assert (await stateless.reply(number))["error"]["data"]["status"] == 403


async def test_a_subscription_ends_when_the_client_cancels_it(stateless, server):
    ended = asyncio.Event()

    async def lasts(call):
        await Listening(call).acknowledge()
        await call.hung_up()
        ended.set()

    server.fail("subscriptions/listen", lasts)
    number = stateless.request("subscriptions/listen", {"notifications": REQUESTED})
    await stateless.read()
    stateless.notify("notifications/cancelled", {"requestId": number})
    async with asyncio.timeout(5):
        await ended.wait()
    assert await stateless.end() == ([], 0)
