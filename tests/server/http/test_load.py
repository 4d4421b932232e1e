"""Many clients of all eras at once: each one gets its own answers."""

import anyio
import pytest
from mcp.client import Client
from mcp.client.sse import sse_client

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
CLIENTS = 60
GENEROUS = {
    "calls_per_minute_per_key": 100_000,
    "calls_per_minute_per_address": 100_000,
    "concurrent_calls_per_key": 1000,
}


async def test_sixty_clients_get_their_own_answers(serving):
    answered = []

    async def visit(served, number):
        places = [served.mcp, served.mcp, sse_client(f"{served.url}/sse/{served.key}", timeout=60)]
        mode = ["2026-07-28", "legacy", "legacy"][number % 3]
        async with Client(places[number % 3], mode=mode) as client:
            for step in range(3):
                vmid = 1000 * (number + 1) + step
                result = await client.call_tool("GetThing", {"vmid": vmid})
                answered.append(f'"vmid":{vmid},' in result.content[0].text)

    async with serving(**GENEROUS) as served:
        with anyio.fail_after(120):
            async with anyio.create_task_group() as tasks:
                for number in range(CLIENTS):
                    tasks.start_soon(visit, served, number)
        assert served.app.endpoint.active_requests.calls == 0
    assert answered == [True] * CLIENTS * 3
