"""Real clients of every era against the real server: each gets the whole product."""

from contextlib import asynccontextmanager

import anyio
import mcp_types as types
import pytest
from mcp import MCPError
from mcp.client import Client
from mcp.client.sse import sse_client

pytestmark = pytest.mark.anyio

ERAS = ["auto", "legacy", "sse"]


@pytest.fixture(params=ERAS)
def connect(request, served):
    """Return how to connect a client of one era, with options of the SDK's client."""

    def client(key=served.key, **options):
        if request.param == "sse":
            return Client(sse_client(f"{served.url}/sse/{key}"), mode="legacy", **options)
        return Client(f"{served.url}/mcp/{key}", mode=request.param, **options)

    return client


def answering(action, content):
    asked = []

    async def answer(_context, params):
        asked.append(params.message)
        return types.ElicitResult(action=action, content=content)

    return asked, answer


async def test_a_client_lists_tools_and_calls_one(connect, fake_tools):
    async with connect() as client:
        listed = await client.list_tools()
        result = await client.call_tool("GetThing", {"vmid": 101})
    assert [tool.name for tool in listed.tools] == list(fake_tools.tools)
    assert result.content[0].text == '{"data":{"vmid":101,"name":"web","cpu_usage":12.3}}'


async def test_instructions_of_a_key_that_only_reads_describe_no_writes(connect, served):
    async with connect(await served.new_key("reader")) as client:
        assert "dry_run" not in client.instructions
        assert "This key only reads" in client.instructions


async def test_a_client_gets_server_info_and_instructions(connect, served):
    async with connect() as client:
        info = client.server_info
        assert (info.name, info.title) == ("pvemcp", "Proxmox VE")
        assert info.website_url
        assert info.icons[0].src.endswith("/icon.svg")
        assert "dry_run" in client.instructions
        assert "ExecuteQuery" not in client.instructions  # there is no such tool here
        can = client.server_capabilities
        assert [can.tools.list_changed, can.prompts.list_changed] == [True, True]
        assert [can.resources.list_changed, can.resources.subscribe] == [True, True]


async def test_progress_is_reported_on_request(connect, fake_tools):
    seen = []

    async def on_progress(done, total, message):
        seen.append((done, total, message))
        fake_tools.release.set()

    async with connect() as client:
        with anyio.fail_after(20):
            await client.call_tool("Wait", {"steps": 3}, progress_callback=on_progress)
    assert seen == [(1.0, 3.0, "step 1")]  # the rest came too soon after it


async def test_a_cancelled_call_ends(connect, fake_tools, served):
    async with connect() as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.call_tool, "Wait")
        with anyio.fail_after(20):
            await fake_tools.started.wait()
            tasks.cancel_scope.cancel()
    with anyio.fail_after(20):
        await fake_tools.cancelled.wait()
    with anyio.fail_after(20):
        while not (entries := await served.recorded()):
            await anyio.lowlevel.checkpoint()
    assert (entries[0].tool, entries[0].outcome) == ("Wait", "cancelled")


async def test_a_destructive_call_runs_after_consent(connect, fake_tools):
    asked, answer = answering("accept", {"confirm": True})
    async with connect(elicitation_callback=answer) as client:
        result = await client.call_tool("DeleteThing", {"vmid": 101})
    assert asked == ["Delete thing 101."]
    assert result.is_error is False
    assert fake_tools.done == ["Delete thing 101."]


NO_TICK = "The user accepted the question without ticking 'Do it', which is no consent; nothing"


@pytest.mark.parametrize(
    ("action", "content", "says"),
    [
        ("decline", None, "The user declined; nothing was changed."),
        ("cancel", None, "The question was dismissed without a decision; nothing was changed."),
        ("accept", {"confirm": False}, NO_TICK),
        ("accept", {}, NO_TICK),
    ],
)
async def test_a_destructive_call_without_consent_does_not_run(
    connect, fake_tools, action, content, says
):
    _, answer = answering(action, content)
    async with connect(elicitation_callback=answer) as client:
        result = await client.call_tool("DeleteThing", {"vmid": 101})
    assert result.content[0].text.startswith(says)
    assert result.is_error is True
    assert fake_tools.done == []


@pytest.mark.parametrize(("choice", "done"), [("deny", []), ("allow", ["Delete thing 101."])])
async def test_a_key_without_a_user_is_never_asked(connect, served, fake_tools, choice, done):
    """Call as a program that says it can ask, and dismisses every question."""
    await served.state.access.keys.change(served.key_id, unattended=choice)
    await served.state.store.watch.poll()
    asked, answer = answering("cancel", None)
    async with connect(elicitation_callback=answer) as client:
        result = await client.call_tool("DeleteThing", {"vmid": 101})
    assert asked == []
    assert fake_tools.done == done
    assert result.is_error is (choice == "deny")


async def test_a_key_without_a_user_does_not_open_what_a_setting_denies(
    connect, served, fake_tools
):
    await served.state.access.keys.change(served.key_id, unattended="allow")
    await served.state.settings.change({"confirm_destructive": "deny"}, by="test")
    await served.state.store.watch.poll()
    async with connect() as client:
        result = await client.call_tool("DeleteThing", {"vmid": 101})
    assert (result.is_error, fake_tools.done) == (True, [])


async def test_notes_begin_on_a_line_of_their_own(connect):
    async with connect() as client:
        result = await client.call_tool("ListThings", {})
    data, notes = (block.text for block in result.content)
    assert notes.startswith("\n")
    assert f"{data}{notes}".splitlines()[0] == data


@pytest.mark.parametrize(("setting", "done"), [("deny", []), ("allow", ["Delete thing 101."])])
async def test_a_setting_decides_for_clients_without_elicitation(
    connect, served, fake_tools, setting, done
):
    await served.state.settings.change({"unconfirmed_destructive": setting}, by="test")
    async with connect() as client:
        result = await client.call_tool("DeleteThing", {"vmid": 101})
    assert fake_tools.done == done
    assert result.is_error is (setting == "deny")
    if setting == "deny":
        assert "Use a client with MCP elicitation" in result.content[0].text


async def test_no_question_is_asked_when_destructive_calls_are_off(connect, served, fake_tools):
    asked, answer = answering("accept", {"confirm": True})
    await served.state.settings.change({"confirm_destructive": "deny"}, by="test")
    async with connect(elicitation_callback=answer) as client:
        result = await client.call_tool("DeleteThing", {"vmid": 101})
    assert (asked, fake_tools.done, result.is_error) == ([], [], True)


async def test_a_client_is_notified_when_its_tools_change(connect, served, fake_tools):
    changed = anyio.Event()

    async def on_message(message):
        if isinstance(message, types.ToolListChangedNotification):
            changed.set()

    async with connect(message_handler=on_message) as client:
        assert len((await client.list_tools()).tools) == 6
        async with listening(client, served):
            await served.state.access.keys.change(served.key_id, role="Read-only")
            with anyio.fail_after(20):
                await changed.wait()
        names = [tool.name for tool in (await client.list_tools(cache_mode="refresh")).tools]
    assert names == [name for name, tool in fake_tools.tools.items() if tool.reads]


@asynccontextmanager
async def listening(client, served):
    """Subscribe to changes; in the handshake eras an open stream is enough."""
    if client.protocol_version == "2026-07-28":
        async with client.listen(tools_list_changed=True):
            yield
        return
    with anyio.fail_after(20):
        while not served.app.endpoint.active_requests.streams():
            await anyio.lowlevel.checkpoint()
    yield


async def test_an_ungranted_tool_is_a_protocol_error(connect, served):
    async with connect(await served.new_key("reader")) as client:
        with pytest.raises(MCPError) as caught:
            await client.call_tool("StartThing", {"vmid": 101})
    assert (caught.value.error.code, caught.value.error.message) == (
        -32602,
        (
            "Unknown tool: StartThing does not exist or is not granted to this key. "
            "tools/list names those that are."
        ),
    )
