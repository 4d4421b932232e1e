"""A call that is refused before it reaches a tool is in the audit, once."""

import json

import pytest

from pvemcp_server.audit import Kind
from pvemcp_server.mcp.tasks import EXTENSION

pytestmark = pytest.mark.anyio

CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
FORMS = {CAPABILITIES: {"elicitation": {}}}
TASKS = {CAPABILITIES: {"extensions": {EXTENSION: {}}}}
YES = {"confirm": {"action": "accept", "content": {"confirm": True}}}
DELETION = {"name": "DeleteThing", "arguments": {"vmid": 101}, "_meta": FORMS}

REFUSED = {
    "a forged state": ("tools/call", {**DELETION, "requestState": "v1.x", "inputResponses": YES}),
    "a malformed answer": ("tools/call", {**DELETION, "inputResponses": "yes"}),
    "malformed arguments": ("tools/call", {**DELETION, "arguments": ["vmid"]}),
    "no name": ("tools/call", {"arguments": {}}),
    "an unknown tool": ("tools/call", {"name": "NoTool", "arguments": {}}),
    "an unknown resource": ("resources/read", {"uri": "pve://nothing"}),
    "a task of another key": ("tasks/get", {"taskId": "x", "_meta": TASKS}),
    "the end of such a task": ("tasks/cancel", {"taskId": "x", "_meta": TASKS}),
    "a client without tasks": ("tasks/update", {"taskId": "x"}),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_every_refused_call_is_recorded_once(served, fake_tools, case):
    method, params = REFUSED[case]
    before = len(await served.recorded())
    name = {"Mcp_Name": params["taskId"]} if "taskId" in params else {}
    answer = (await served.modern.send(method, params, **name)).json()
    assert "error" in answer
    [entry] = (await served.recorded())[before:]
    assert entry.kind is Kind.REFUSED
    assert entry.key_id == served.key_id
    assert entry.tool == params.get("name", method)
    assert entry.reason
    assert fake_tools.done == []


CONTRADICTIONS = {
    "another name": {"Mcp_Name": "ListThings"},
    "another method": {"Mcp_Method": "tools/list"},
    "an unknown revision": {"MCP_Protocol_Version": "2099-01-01"},
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
async def test_a_call_that_the_transport_refuses_is_recorded_once(served, fake_tools, case):
    before = len(await served.recorded())
    params = {"name": "DeleteThing", "arguments": {"vmid": 101}}
    answer = await served.modern.send("tools/call", params, **CONTRADICTIONS[case])
    assert answer.status_code == 400
    [entry] = (await served.recorded())[before:]
    assert (entry.kind, entry.key_id, entry.tool) == (Kind.REFUSED, served.key_id, "DeleteThing")
    assert entry.arguments == {"arguments": {"vmid": 101}}
    assert entry.reason == answer.json()["error"]["message"]
    assert fake_tools.done == []


CALL = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "DeleteThing", "arguments": {"vmid": 101}},
}
SSE = f"/sse/messages?session_id={32 * '0'}"
BATCH = {"MCP-Protocol-Version": "2025-03-26"}
LATER = {"MCP-Protocol-Version": "2025-11-25"}
OF_SESSIONS = {
    "an unknown session": ("/mcp", CALL, {"Mcp-Session-Id": "gone"}),
    "no session": ("/mcp", CALL, {}),
    "an unknown stream": (SSE, CALL, {}),
    "another type": ("/mcp", CALL, {"Content-Type": "text/plain"}),
    "an answer of another type": ("/mcp", CALL, {"Accept": "text/plain"}),
    "a malformed id": ("/mcp", {**CALL, "id": 1.5}, {}),
    "such an id on a stream": (SSE, {**CALL, "id": 1.5}, {}),
    "a later revision on a stream": (SSE, CALL, {"MCP-Protocol-Version": "2026-07-28"}),
    "a batch of an unknown session": ("/mcp", [CALL], {"Mcp-Session-Id": "gone", **BATCH}),
    "a batch with a malformed message": ("/mcp", [CALL, 5], BATCH),
    "a batch of many calls, one malformed": ("/mcp", [*[CALL] * 49, 5], BATCH),
    "a batch of many calls in a later revision": ("/mcp", [CALL] * 50, LATER),
    "a batch of many calls of an unknown session": (
        *("/mcp", [CALL] * 50),
        {"Mcp-Session-Id": "gone", **BATCH},
    ),
}


async def test_a_call_that_a_transport_of_sessions_refuses_is_recorded_once(served, fake_tools):
    usual = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
    for case, (path, body, headers) in OF_SESSIONS.items():
        before = len(await served.recorded())
        sent = usual | headers | {"X-API-Key": served.key}
        answer = await served.http.post(path, content=json.dumps(body), headers=sent)
        assert answer.status_code >= 400, case
        [entry] = (await served.recorded())[before:]
        assert (entry.kind, entry.tool) == (Kind.REFUSED, "DeleteThing"), case
        assert (entry.key_id, entry.arguments) == (served.key_id, {"arguments": {"vmid": 101}}), (
            case
        )
        assert entry.reason, case
    assert fake_tools.done == []


async def test_a_consent_of_another_key_is_recorded_without_its_state(served, fake_tools):
    asked = (await served.modern.send("tools/call", DELETION)).json()["result"]
    other = served.modern
    other.path = f"/mcp/{await served.new_key('other', role='Administrator')}"
    stolen = {**DELETION, "requestState": asked["requestState"], "inputResponses": YES}
    assert (await other.send("tools/call", stolen)).json()["error"]["code"] == -32602
    entry = (await served.recorded())[-1]
    assert (entry.kind, entry.key_name, entry.tool) == (Kind.REFUSED, "other", "DeleteThing")
    assert entry.arguments == {"arguments": {"vmid": 101}, "inputResponses": YES}
    assert fake_tools.done == []
