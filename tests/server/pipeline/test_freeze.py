"""The freeze switch, seen by real clients: what a frozen server refuses, and what it still does."""

import re
from contextlib import asynccontextmanager

import mcp_types as types
import pytest
from mcp.client import Client

from pvemcp_server.admin import approvals, clusters
from pvemcp_server.admin.clusters import FreezeFields
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.permission import COMMAND_LINE

pytestmark = pytest.mark.anyio

REFUSED = re.compile(
    r"Writes are frozen on all clusters since 20\S+Z by ada: a restore is running\. This was not "
    r"sent\. .* `pvemcp clusters unfreeze-all`; repeat the call then\."
)
WHY = FreezeFields(reason="a restore\nis running.")


@pytest.fixture
def administrator(served) -> AdminContext:
    return AdminContext(served.app.endpoint.services, by="ada", authority=COMMAND_LINE)


@asynccontextmanager
async def connected(server, **options):
    async with Client(server.mcp, **options) as client:
        yield client


async def text_of(client, tool: str, **arguments) -> str:
    result = await client.call_tool(tool, {"vmid": 101, **arguments})
    return "\n".join(part.text for part in result.content)


async def test_a_frozen_server_refuses_writes_and_answers_reads(served, administrator, fake_tools):
    async with served.twin() as twin, connected(served) as one, connected(twin) as other:
        await clusters.freeze_all(administrator, WHY)
        await twin.state.store.watch.poll()  # as it does twice a second
        for client in (one, other):
            assert REFUSED.fullmatch(await text_of(client, "StartThing"))
            dry_run = await text_of(client, "StartThing", dry_run=True)
            assert "Start thing 101." in dry_run
            assert "Until that ends, this would be refused." in dry_run
            assert "web" in await text_of(client, "GetThing")
        assert fake_tools.done == []
        outcomes = [
            (entry.outcome, entry.reason)
            for entry in await served.recorded()
            if entry.tool == "StartThing" and entry.reason
        ]
        assert {outcome for outcome, _ in outcomes} == {"error"}
        assert all(REFUSED.fullmatch(reason) for _, reason in outcomes)

        await clusters.unfreeze_all(administrator)
        assert "success" in await text_of(one, "StartThing")
        changes = [e for e in await served.recorded() if (e.tool or "").startswith("admin.")]
        assert [e.tool for e in changes] == ["admin.freezes.start_all", "admin.freezes.end_all"]
        assert "a restore is running" in changes[1].arguments["frozen"]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_call_that_waits_for_its_user_is_checked_again(
    served, administrator, fake_tools, mode
):
    async def freeze_and_agree(_context, _params):
        await clusters.freeze_all(administrator, WHY)
        return types.ElicitResult(action="accept", content={"confirm": True})

    async with connected(served, mode=mode, elicitation_callback=freeze_and_agree) as client:
        assert REFUSED.fullmatch(await text_of(client, "DeleteThing"))
        before = len(await served.recorded())
        assert REFUSED.fullmatch(await text_of(client, "DeleteThing")), "the user is not asked"
        kinds = [entry.kind for entry in (await served.recorded())[before:]]
        assert "decision" not in kinds
    assert fake_tools.done == []


async def test_an_approval_outlasts_a_freeze(served, administrator, fake_tools):
    async with connected(served) as client:
        waiting = await text_of(client, "DeleteThing")
        number = int(re.search(r"number (\d+)\.", waiting)[1])
        await clusters.freeze_all(administrator, WHY)
        await approvals.approve(administrator, number)
        assert REFUSED.fullmatch(await text_of(client, "DeleteThing"))
        await clusters.unfreeze_all(administrator)
        await client.call_tool("DeleteThing", {"vmid": 101})
    assert fake_tools.done == ["Delete thing 101."]


async def test_a_second_freeze_keeps_the_first_and_ends_with_it(administrator):
    first = await clusters.freeze_all(administrator, WHY)
    assert await clusters.freeze_all(administrator, FreezeFields()) == first
    assert await clusters.list_freezes(administrator) == [first]
    await clusters.unfreeze_all(administrator)
    assert await clusters.list_freezes(administrator) == []
