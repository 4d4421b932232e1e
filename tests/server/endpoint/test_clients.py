"""Real clients of both eras against the real server."""

import pytest
from mcp.client import Client

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
async def test_a_client_of_either_era_lists_and_calls(served, mode):
    async with Client(served.mcp, mode=mode) as client:
        listed = await client.list_tools()
        result = await client.call_tool("GetThing", {"vmid": 101})
    assert [tool.name for tool in listed.tools][:2] == ["ListThings", "GetThing"]
    assert result.content[0].text == '{"data":{"vmid":101,"name":"web","cpu_usage":12.3}}'
