"""What each revision demands of the wire itself: kept by the SDK, and by how we have set it up."""

import json

import pytest
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from pvemcp_server.mcp import elicitation

pytestmark = pytest.mark.anyio
ACCEPT = {"Accept": "application/json, text/event-stream"}
LATEST_WITH_SESSIONS = "2025-11-25"


def events(text):
    """Return the messages of an event stream."""
    return [json.loads(one[6:]) for one in text.splitlines() if one.startswith("data: {")]


async def hello(served, version):
    """Return the HTTP response to initialize."""
    info = {"clientInfo": {"name": "test", "version": "1"}, "capabilities": {}}
    params = {"protocolVersion": version, **info}
    body = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
    return await served.http.post(served.mcp, json=body, headers=ACCEPT)


async def in_session(served, method, **headers):
    """Send a message in a session, with additional headers."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {}}
    exchange = {name.replace("_", "-"): value for name, value in headers.items()}
    return await served.http.post(served.mcp, json=body, headers=ACCEPT | exchange)


# 2026-07-28


@pytest.mark.parametrize(
    "left_out",
    [
        "io.modelcontextprotocol/protocolVersion",
        "io.modelcontextprotocol/clientCapabilities",
    ],
)
async def test_a_request_without_client_metadata_gets_32602(modern, left_out):
    body = modern.message("tools/list")
    del body["params"]["_meta"][left_out]
    answer = await modern.http.post(modern.path, json=body, headers=modern.headers("tools/list"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32602)


async def test_an_unknown_revision_gets_the_known_ones(modern):
    unknown = {"io.modelcontextprotocol/protocolVersion": "2030-01-01"}
    answer = await modern.send(
        "tools/list", {"_meta": unknown}, **{"MCP-Protocol-Version": "2030-01-01"}
    )
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, -32022)
    assert error["data"]["requested"] == "2030-01-01"
    assert "2026-07-28" in error["data"]["supported"]


@pytest.mark.parametrize(
    "method",
    ["no/such", "ping", "initialize", "logging/setLevel", "resources/subscribe", "tasks/list"],
)
async def test_a_method_of_another_revision_is_404(modern, method):
    answer = await modern.send(method)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, -32601)


async def test_discovery_has_info_and_capabilities(modern):
    answer = (await modern.send("server/discover")).json()["result"]
    assert "2026-07-28" in answer["supportedVersions"]
    assert (answer["cacheScope"], answer["ttlMs"] > 0) == ("private", True)
    assert set(answer["capabilities"]) == {
        *("completions", "extensions", "prompts", "resources", "tools")
    }
    assert answer["instructions"]


async def test_each_result_names_its_type_and_server(modern):
    for method, params in (("tools/list", {}), ("tools/call", {"name": "ListThings"})):
        result = (await modern.send(method, params)).json()["result"]
        assert result["resultType"] == "complete"
        assert result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "pvemcp"


async def test_results_are_text_only(modern):
    tools = (await modern.send("tools/list")).json()["result"]["tools"]
    assert [tool for tool in tools if "outputSchema" in tool] == []
    result = (await modern.call("GetThing", vmid=101))["result"]
    assert "structuredContent" not in result


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}, 202),
        ({"jsonrpc": "2.0", "id": 1, "result": {}}, 400),
        ([], 400),
    ],
    ids=["notification", "response", "batch"],
)
async def test_notifications_and_batches_get_no_response(modern, body, status):
    headers = modern.headers("notifications/cancelled")
    answer = await modern.http.post(modern.path, json=body, headers=headers)
    assert answer.status_code == status
    assert "result" not in answer.text


async def test_a_streamed_response_has_its_progress_and_its_result(modern, fake_tools):
    fake_tools.release.set()
    asked = {"name": "Wait", "arguments": {"steps": 1}, "_meta": {"progressToken": "mine"}}
    answer = await modern.send("tools/call", asked)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-accel-buffering"] == "no"
    report, result = events(answer.text)
    assert report["params"]["progressToken"] == "mine"
    assert result["id"] == 1


async def test_no_progress_is_reported_without_a_token(modern, fake_tools):
    fake_tools.release.set()
    answer = await modern.send("tools/call", {"name": "Wait", "arguments": {"steps": 1}})
    assert answer.headers["content-type"] == "application/json"


def test_the_user_is_never_asked_for_a_secret():
    (field,) = elicitation.FORM["properties"].values()
    assert field["type"] == "boolean"


# Sessions


@pytest.mark.parametrize(
    ("asked", "answered"),
    [*((one, one) for one in HANDSHAKE_PROTOCOL_VERSIONS), ("1999-01-01", LATEST_WITH_SESSIONS)],
)
async def test_the_handshake_agrees_on_the_requested_or_latest_revision(served, asked, answered):
    answer = await hello(served, asked)
    (message,) = events(answer.text)
    assert message["result"]["protocolVersion"] == answered
    assert answer.headers["mcp-session-id"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 400),
        ({"Mcp_Session_Id": "invented"}, 404),
        ({"MCP_Protocol_Version": "2025-11-25"}, 400),
        ({"MCP_Protocol_Version": "2030-01-01"}, 400),
    ],
    ids=["no session", "unknown session", "no session but a revision", "unknown revision"],
)
async def test_a_message_without_a_known_session_is_refused(served, headers, status):
    assert (await in_session(served, "tools/list", **headers)).status_code == status


async def test_a_session_without_a_revision_header_is_served(served):
    session = (await hello(served, "2025-03-26")).headers["mcp-session-id"]
    answer = await in_session(served, "ping", Mcp_Session_Id=session)
    assert answer.status_code == 200


async def test_a_session_gets_nothing_of_a_later_revision(served):
    session = (await hello(served, "2025-06-18")).headers["mcp-session-id"]
    headers = {"Mcp_Session_Id": session, "MCP_Protocol_Version": "2025-06-18"}
    (answer,) = events((await in_session(served, "tools/list", **headers)).text)
    assert {"ttlMs", "cacheScope", "resultType", "_meta"}.isdisjoint(answer["result"])


async def test_a_message_of_2026_without_its_headers_is_refused(modern):
    answer = await modern.http.post(modern.path, json=modern.message("tools/list"), headers=ACCEPT)
    assert answer.status_code == 400
