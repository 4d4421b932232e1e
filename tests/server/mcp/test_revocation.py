"""Rights that are taken away end the calls, questions and streams that were opened with them."""

import anyio
import mcp_types as types
import pytest
from mcp import MCPError
from mcp.client import Client
from mcp.client.sse import sse_client

from .test_sessions import disable, exclude_address, open_stream, regenerate, remove

__all__ = ["open_stream"]

pytestmark = pytest.mark.anyio
CHANGED = "The rights of this key changed while the call ran"


async def narrow_role(keys, key_id):
    await keys.change(key_id, role="Read-only")


async def narrow_tools(keys, key_id):
    await keys.change(key_id, tools=["GetThing"])


async def narrow_clusters(keys, key_id):
    await keys.change(key_id, clusters=["another"])


LESS = (narrow_role, narrow_tools, narrow_clusters)
REFUSED = (disable, remove, regenerate, exclude_address)


async def switch_off(served):
    await served.state.settings.change({"enabled": False}, by="test")


@pytest.fixture(params=["auto", "legacy", "sse"])
def connect(request, served):
    """Return how to connect a client of one era, with answers to questions."""

    def connected(answer=None):
        target, mode = f"{served.url}/mcp/{served.key}", request.param
        if mode == "sse":
            target, mode = sse_client(f"{served.url}/sse/{served.key}"), "legacy"
        return Client(target, mode=mode, elicitation_callback=answer)

    return connected


async def text_of(client, tool, **arguments):
    """Return the text of a call's result, or of the error that ended it."""
    try:
        with anyio.fail_after(20):
            return (await client.call_tool(tool, arguments)).content[0].text
    except MCPError as error:
        return str(error)


@pytest.mark.parametrize("take_away", [narrow_role, narrow_tools])
async def test_a_consent_counts_only_with_the_rights_of_its_question(
    served, connect, fake_tools, take_away
):
    async def agree(_context, _params):
        await take_away(served.state.access.keys, served.key_id)
        await served.state.store.watch.poll()
        return types.ElicitResult(action="accept", content={"confirm": True})

    async with connect(agree) as client:
        await text_of(client, "DeleteThing", vmid=101)
    assert fake_tools.done == []


async def test_a_consent_counts_only_for_the_plan_that_was_shown(connect, fake_tools):
    questions = []

    async def agree(_context, params):
        questions.append(params.message)
        fake_tools.loses = "Much more is lost by now."
        return types.ElicitResult(action="accept", content={"confirm": len(questions) == 1})

    async with connect(agree) as client:
        text = await text_of(client, "DeleteThing", vmid=101)
    assert fake_tools.done == []
    assert questions == ["Delete thing 101.", "Delete thing 101. Much more is lost by now."]
    assert "without ticking" in text


async def test_a_consent_counts_only_under_the_settings_of_its_time(served, connect, fake_tools):
    async def agree(_context, _params):
        await served.state.settings.change({"confirm_destructive": "deny"}, by="test")
        return types.ElicitResult(action="accept", content={"confirm": True})

    async with connect(agree) as client:
        text = await text_of(client, "DeleteThing", vmid=101)
    assert "are switched off here; nothing was changed" in text
    assert fake_tools.done == []


@pytest.mark.parametrize("take_away", [*LESS, *REFUSED])
async def test_a_running_call_ends_with_its_rights(served, fake_tools, take_away):
    async with Client(served.mcp) as client, anyio.create_task_group() as tasks:
        texts = []

        async def call():
            texts.append(await text_of(client, "Wait"))

        tasks.start_soon(call)
        with anyio.fail_after(20):
            await fake_tools.started.wait()
            await served.state.access.keys.create("another")
            await served.state.store.watch.poll()
            await served.app.endpoint.notifications.refresh()
            assert not fake_tools.cancelled.is_set()
            await take_away(served.state.access.keys, served.key_id)
            await fake_tools.cancelled.wait()
    assert texts[0].startswith(CHANGED)
    [entry] = [each for each in await served.recorded() if each.tool == "Wait"]
    assert (entry.outcome, entry.reason) == ("cancelled", "cancelled by a change of its rights")


async def test_a_switched_off_endpoint_ends_streams_and_calls(served, open_stream, fake_tools):
    async with open_stream() as stream, Client(served.mcp) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(text_of, client, "Wait")
            with anyio.fail_after(20):
                await fake_tools.started.wait()
                await switch_off(served)
                await fake_tools.cancelled.wait()
        assert b"list_changed" not in await stream.aread()
