"""Toolsets: rare tools that a key lists, and may call, only if it has their set."""

from itertools import chain

import pytest

from pvemcp_server.access.model import ANY, NAMED_ONLY, READS, Caller, Grant, Role, Toolset
from pvemcp_server.mcp.instructions import instructions
from pvemcp_server.mcp.tools import visible_tools
from pvemcp_server.toolkit.registry import tools

from .tool_client import FakeClusters, ToolClient

pytestmark = pytest.mark.anyio
HELD = ((), *((each,) for each in Toolset), tuple(Toolset))


def key(toolsets, tools=ANY):
    role = Role(1, "test", "", (Grant(frozenset({tools})),))
    return Caller("k", "test key", role, toolsets=frozenset(toolsets))


@pytest.mark.parametrize("held", HELD, ids=lambda held: " ".join(held) or "none")
async def test_a_key_may_call_exactly_the_tools_that_it_lists(held):
    client = ToolClient(FakeClusters(), toolsets=frozenset(held))
    listed = {tool.name for tool in visible_tools(tools(), key(held))}
    for name, tool in tools().items():
        refusal = await client.refused(name, no_such_argument=1)
        if name in listed:
            assert "no_such_argument" in refusal
            continue
        options = " ".join(f"--toolset {each}" for each in sorted({*held, tool.toolset}))
        assert refusal == (
            f"{name} is in the toolset {tool.toolset}, which this key lacks. An administrator can "
            f"add it, on the page API Access or with `pvemcp keys change 'test key' {options}`."
        )
    assert listed == {name for name, tool in tools().items() if tool.toolset in (None, *held)}


def test_every_toolset_has_tools_and_the_named_tools_are_in_one():
    assert {tool.toolset for tool in tools().values()} == {None, *Toolset}
    assert all(tools()[name].toolset for name in NAMED_ONLY)


@pytest.mark.parametrize("toolset", Toolset)
def test_the_instructions_name_the_toolsets_that_the_key_lacks(toolset):
    named = f"toolset {toolset} ({toolset.description})"
    assert named in instructions(tools(), key(()))
    assert named not in instructions(tools(), key((toolset,)))


def test_the_instructions_name_no_toolset_that_the_role_grants_nothing_of():
    assert "toolset" not in instructions(tools(), key((), READS))
    assert "toolset" not in instructions(tools(), key(Toolset))


async def test_explain_access_shows_what_a_toolset_would_add():
    client = ToolClient(FakeClusters(), toolsets=frozenset({Toolset.API}))
    access = (await client("ExplainAccess")).data
    missing = {
        str(toolset): [name for name, tool in tools().items() if tool.toolset is toolset]
        for toolset in set(Toolset) - {Toolset.API}
    }
    assert access["missing_toolsets"] == missing
    assert access["not_granted"] == []
    assert {*access["tools"], *chain(*missing.values())} == set(tools())
