"""Step-up: a call beyond the token's scopes is 403 in each revision's form, or a tool error."""

import json

import anyio
import mcp_types as types
import pytest
from mcp.client import Client
from mcp.client.sse import sse_client

from pvemcp_server.access.model import Effect
from pvemcp_server.oauth.scopes import NEEDED, Scope, included, is_sufficient, scopes_in
from pvemcp_server.store.key_format import new_id
from pvemcp_server.toolkit.registry import tools
from pvemcp_server.tools import all as _declared  # noqa: F401 - importing it declares every tool

from .connected import connect, granted

pytestmark = pytest.mark.anyio
LEGACY = ("2025-11-25", "2025-06-18", "2025-03-26")
CALL = {"name": "DeleteThing", "arguments": {"vmid": 101}}


async def token_for(served, *scopes, path="/mcp", **options):
    tokens = served.app.endpoint.services.oauth.tokens
    connection = await connect(
        served.state.store, scopes=scopes, name=f"alice {new_id()}", subject=new_id(), **options
    )
    return (await granted(tokens, connection, f"{served.url}{path}")).access_token


async def opened(served, token, version):
    """Return the headers of a session in a revision of the handshake."""
    headers = {
        "Authorization": f"Bearer {token}",
        "Accept": "application/json, text/event-stream",
    }
    params = {
        "protocolVersion": version,
        "capabilities": {},
        "clientInfo": {"name": "x", "version": "1"},
    }
    message = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
    answer = await served.http.post("/mcp", json=message, headers=headers)
    session = answer.headers["Mcp-Session-Id"]
    return headers | {"Mcp-Session-Id": session, "MCP-Protocol-Version": version}


def call(tool="DeleteThing", number=1):
    params = {"name": tool, "arguments": {"vmid": 101}}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


def scope_of(answer, served):
    """Return the scope of the challenge to ask for."""
    challenge = answer.headers["WWW-Authenticate"]
    metadata = f"{served.url}/.well-known/oauth-protected-resource/mcp"
    assert answer.status_code == 403
    assert challenge.startswith('Bearer error="insufficient_scope", scope="')
    assert f'resource_metadata="{metadata}"' in challenge
    return challenge.split('"')[3]


def test_scopes_include_the_ones_before_them():
    assert scopes_in("pve:write offline_access unknown") == ["pve:read", "pve:write"]
    assert included([]) == []
    assert is_sufficient(frozenset({"pve:destroy"}), Scope.READ)
    assert not is_sufficient(frozenset(), Scope.READ)
    assert set(NEEDED) == set(Effect)
    assert all(scope.description for scope in Scope)


def test_every_tool_needs_the_scope_of_its_effect():
    for tool in tools().values():
        needed = Scope.READ if tool.write_permission else NEEDED[tool.effect]
        assert tool.scope is needed, tool.name


async def test_the_revision_of_2026_names_what_the_call_needs(served, modern, fake_tools):
    token = await token_for(served, "pve:read")
    modern.path = "/mcp"
    bearer = {"Authorization": f"Bearer {token}"}
    listed = await modern.send("tools/list", **bearer)
    assert "DeleteThing" in listed.text
    answer = await modern.send("tools/call", CALL, **bearer)
    assert scope_of(answer, served) == "pve:destroy"
    assert "needs the scope pve:destroy" in answer.json()["error"]["message"]
    started = {"name": "StartThing", "arguments": {"vmid": 101}}
    assert scope_of(await modern.send("tools/call", started, **bearer), served) == "pve:write"
    reads = {"name": "GetThing", "arguments": {"vmid": 101}}
    assert (await modern.send("tools/call", reads, **bearer)).status_code == 200
    cancel = await modern.send("tasks/cancel", {"taskId": "x"}, Mcp_Name="x", **bearer)
    assert scope_of(cancel, served) == "pve:write"
    assert fake_tools.done == []
    refused = [entry for entry in await served.recorded() if entry.outcome == "refused"]
    assert [entry.tool for entry in refused] == ["DeleteThing", "StartThing", "tasks/cancel"]
    assert "needs the scope pve:destroy" in refused[0].reason


@pytest.mark.parametrize("version", LEGACY)
async def test_earlier_revisions_name_the_granted_scopes_too(served, fake_tools, version):
    token = await token_for(served, "pve:read")
    headers = await opened(served, token, version)
    answer = await served.http.post("/mcp", json=call(), headers=headers)
    assert scope_of(answer, served) == "pve:read pve:write pve:destroy"
    answer = await served.http.post("/mcp", json=call("StartThing"), headers=headers)
    assert scope_of(answer, served) == "pve:read pve:write"
    read = await served.http.post("/mcp", json=call("GetThing"), headers=headers)
    assert read.status_code == 200
    if version == "2025-03-26":  # the only one with batches
        batch = [call("GetThing", 1), call("StartThing", 2)]
        answer = await served.http.post("/mcp", json=batch, headers=headers)
        assert scope_of(answer, served) == "pve:read pve:write"
    assert fake_tools.done == []


async def test_a_wider_token_goes_on_in_the_same_session(served, fake_tools):
    narrow = await token_for(served, "pve:read")
    headers = await opened(served, narrow, "2025-11-25")
    assert (await served.http.post("/mcp", json=call("StartThing"), headers=headers)).is_error
    [record] = await served.state.store.connections.all()
    tokens = served.app.endpoint.services.oauth.tokens
    await served.state.store.connections.change(record.id, scopes=["pve:write"])
    wider = await served.state.store.connections.find(id=record.id)
    token = (await granted(tokens, wider, f"{served.url}/mcp")).access_token
    headers |= {"Authorization": f"Bearer {token}"}
    answer = await served.http.post("/mcp", json=call("StartThing"), headers=headers)
    assert answer.status_code == 200
    assert fake_tools.done == ["Start thing 101."]


async def test_a_scope_is_no_matter_of_what_the_role_does_not_grant(served, modern):
    token = await token_for(served, "pve:read", role="Read-only")
    modern.path = "/mcp"
    for name in ("DeleteThing", "Unknown"):
        answer = await modern.send(
            "tools/call", {"name": name, "arguments": {}}, Authorization=f"Bearer {token}"
        )
        assert answer.json()["error"]["code"] == types.INVALID_PARAMS, name


@pytest.mark.parametrize("path", ["/mcp", "/sse"])
async def test_a_token_without_a_scope_reads_nothing(served, modern, path):
    modern.path = path
    bearer = {"Authorization": f"Bearer {await token_for(served, path=path)}"}
    for method in ("tools/list", "resources/list", "prompts/list", "server/discover"):
        answer = await modern.send(method, **bearer)
        assert answer.status_code == 403, method
        assert 'scope="pve:read"' in answer.headers["WWW-Authenticate"]


async def test_over_sse_a_call_beyond_the_scope_is_an_error_with_the_next_step(served, fake_tools):
    token = await token_for(served, "pve:read", path="/sse")
    bearer = {"Authorization": f"Bearer {token}"}
    target = sse_client(f"{served.url}/sse", headers=bearer)
    with anyio.fail_after(20):
        async with Client(target, mode="legacy") as client:
            result = await client.call_tool("DeleteThing", {"vmid": 101})
            read = await client.call_tool("GetThing", {"vmid": 101})
    assert result.is_error
    assert "needs the scope pve:destroy" in result.content[0].text
    assert "Connect again and ask for pve:destroy" in result.content[0].text
    assert not read.is_error
    assert fake_tools.done == []


async def test_what_only_the_plan_shows_is_refused_before_it_is_sent(served, modern, fake_tools):
    fake_tools.loses = "The disk of thing 101 is lost."
    token = await token_for(served, "pve:write")
    modern.path = "/mcp"
    bearer = {"Authorization": f"Bearer {token}"}
    started = {"name": "StartThing", "arguments": {"vmid": 101}}
    answer = await modern.send("tools/call", started, **bearer)
    result = answer.json()["result"]
    assert (answer.status_code, result["isError"]) == (200, True)
    assert "needs the scope pve:destroy" in result["content"][0]["text"]
    started["arguments"]["dry_run"] = True
    result = (await modern.send("tools/call", started, **bearer)).json()["result"]
    assert json.loads(result["content"][0]["text"])
    assert "lacks the scope pve:destroy" in result["content"][1]["text"]
    assert fake_tools.done == []
