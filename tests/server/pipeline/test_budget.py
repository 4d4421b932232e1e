"""The budget of destructive calls of a key: what costs, what does not, and the refusal."""

import mcp_types as types
import pytest
from mcp.client import Client

pytestmark = pytest.mark.anyio


async def agree(_context, _params):
    return types.ElicitResult(action="accept", content={"confirm": True})


async def decline(_context, _params):
    return types.ElicitResult(action="decline")


async def call(server, tool: str, answer=agree, **arguments) -> str:
    async with Client(server.mcp, elicitation_callback=answer) as client:
        result = await client.call_tool(tool, {"vmid": 101, **arguments})
        return result.content[0].text


async def test_only_what_is_sent_and_loses_data_is_counted(served, fake_tools):
    keys, budgets = served.state.access.keys, served.state.access.budgets
    await keys.change(served.key_id, destructive_per_day=2)
    await call(served, "DeleteThing", decline)
    await call(served, "DeleteThing", dry_run=True)
    await call(served, "StartThing")
    assert (await budgets.of(served.key_id, 100)).used == 0
    async with served.twin() as twin:
        for server in (served, twin):
            await call(server, "DeleteThing")
        refused = [await call(server, "DeleteThing") for server in (served, twin)]
    done = list(fake_tools.done)
    assert done.count("Delete thing 101.") == 2
    for text in refused:
        assert "2 were sent today, and this needs 1. This was not sent." in text
        assert "The budget renews at 20" in text
    last = (await served.recorded())[-1]
    assert (last.kind, last.outcome, last.reason) == ("call", "error", refused[-1])
    fake_tools.loses = "Its data is lost."
    assert "This was not sent." in await call(served, "StartThing"), "by its plan"
    await keys.change(served.key_id, destructive_per_day=None)
    await call(served, "StartThing")
    assert len(fake_tools.done) == len(done) + 1
