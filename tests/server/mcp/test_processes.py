"""Sessions of the older revisions on several processes: a balancer may send a request to any."""

from contextlib import asynccontextmanager
from itertools import cycle

import anyio
import httpx2 as httpx
import mcp_types as types
import pytest
from mcp import MCPError
from mcp.client import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]


class Balancer(httpx.AsyncHTTPTransport):
    """Sends each request to the next server in turn, and notes what went where."""

    def __init__(self, servers, offset=0):
        super().__init__()
        self.turns = cycle(enumerate(httpx.URL(served.url) for served in servers))
        self.sent = []
        for _ in range(offset):
            next(self.turns)

    async def handle_async_request(self, request):
        number, url = next(self.turns)
        self.sent.append((request.method, number))
        request.url = request.url.copy_with(host=url.host, port=url.port)
        return await super().handle_async_request(request)


@pytest.fixture(params=["legacy", "sse"])
def connect(request, two_processes):
    """Return how to connect a client of an older revision through the balancer."""

    @asynccontextmanager
    async def client(offset=0, **options):
        balancer = Balancer(two_processes, offset)
        url, key = two_processes[0].url, two_processes[0].key

        def factory(headers=None, timeout=30, auth=None):
            return httpx.AsyncClient(
                transport=balancer, headers=headers, timeout=timeout, auth=auth
            )

        async with factory() as http:
            transport = (
                sse_client(f"{url}/sse/{key}", httpx_client_factory=factory)
                if request.param == "sse"
                else streamable_http_client(f"{url}/mcp/{key}", http_client=http)
            )
            async with Client(transport, mode="legacy", **options) as opened:
                yield opened, balancer

    return client


async def test_any_process_serves_any_request(connect, fake_tools):
    with anyio.fail_after(30):
        async with connect() as (client, balancer):
            for _ in range(4):
                assert [tool.name for tool in (await client.list_tools()).tools]
                result = await client.call_tool("GetThing", {"vmid": 101})
                assert result.is_error is False
    assert {number for _, number in balancer.sent} == {0, 1}


async def test_an_answer_reaches_the_process_that_asked(connect, fake_tools):
    async def answer(_context, params):
        asked.append(params.message)
        return types.ElicitResult(action="accept", content={"confirm": True})

    asked = []
    with anyio.fail_after(30):
        async with connect(elicitation_callback=answer) as (client, _):
            for vmid in (101, 102, 103):  # whichever process it begins with
                result = await client.call_tool("DeleteThing", {"vmid": vmid})
                assert result.is_error is False
    assert fake_tools.done == asked == [f"Delete thing {vmid}." for vmid in (101, 102, 103)]


@pytest.mark.parametrize("offset", [0, 1])
async def test_a_call_of_another_process_is_cancelled(connect, fake_tools, offset):
    with anyio.fail_after(30):
        async with connect(offset) as (client, _):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.call_tool, "Wait")
                await fake_tools.started.wait()
                tasks.cancel_scope.cancel()
            await fake_tools.cancelled.wait()


async def test_a_question_is_answered_once_only(two_processes, connect, fake_tools):
    async def answer(_context, params):
        both.append(params.message)
        while len(both) < 2:
            await anyio.lowlevel.checkpoint()
        agrees = params.message == "Delete thing 101."
        return types.ElicitResult(
            action="accept" if agrees else "decline", content={"confirm": True}
        )

    both, results = [], {}

    async def delete(client, vmid):
        results[vmid] = await client.call_tool("DeleteThing", {"vmid": vmid})

    with anyio.fail_after(30):
        async with (
            connect(elicitation_callback=answer) as (client, _),
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(delete, client, 101)
            tasks.start_soon(delete, client, 102)
    assert fake_tools.done == ["Delete thing 101."]
    assert {vmid: result.is_error for vmid, result in results.items()} == {101: False, 102: True}


async def opened_session(process):
    """Open a session of revision 2025-11-25; return the headers of its requests."""
    headers = {"Accept": "application/json, text/event-stream", "X-API-Key": process.key}
    params = {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    }
    hello = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
    opened = await process.http.post("/mcp", json=hello, headers=headers)
    headers |= {"Mcp-Session-Id": opened.headers["mcp-session-id"]}
    return headers


async def test_a_session_ends_in_every_process(two_processes):
    one, other = two_processes
    headers = await opened_session(one)
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    assert (await other.http.post("/mcp", json=ping, headers=headers)).status_code == 200
    assert (await one.http.delete("/mcp", headers=headers)).status_code == 200
    with anyio.fail_after(20):
        while (await other.http.post("/mcp", json=ping, headers=headers)).status_code != 404:
            await anyio.lowlevel.checkpoint()


async def test_a_post_to_a_stream_that_has_ended_is_404(two_processes, monkeypatch):
    monkeypatch.setattr("pvemcp_server.mcp.relay.ANSWER_SECONDS", 0.01)
    one, _ = two_processes
    path = f"/sse/messages?process=0123abcd&session_id={'0' * 32}"
    body = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    answer = await one.http.post(path, json=body, headers={"X-API-Key": one.key})
    assert answer.status_code == 404
    assert "open a new one" in answer.json()["error"]["message"]


async def test_a_long_message_is_passed_on_whole(connect):
    with anyio.fail_after(30):
        async with connect() as (client, _):
            for _ in range(2):
                with pytest.raises(MCPError):
                    await client.call_tool("Unknown", {"text": "x" * 200_000})


async def test_a_message_of_a_stranger_is_not_served(two_processes, caplog):
    one, other = two_processes
    channel = one.state.store.process_channel
    other_process = other.state.store.process_channel.process
    monkey = channel._key
    channel._key = lambda: b"0" * 32
    await channel.send(other_process, {"id": "1"})
    channel._key = monkey
    with anyio.fail_after(20):
        while "not sealed by one of them" not in caplog.text:
            await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("method", ["resources/subscribe", "notifications/cancelled"])
async def test_what_every_process_serves_is_short(two_processes, method):
    # with long ones, one key could keep all processes busy and fill their memory
    one, _ = two_processes
    headers = await opened_session(one)
    message = {"jsonrpc": "2.0", "method": method, "params": {"uri": "x" * 20_000, "requestId": 1}}
    if method.startswith("resources"):
        message["id"] = 1
    assert (await one.http.post("/mcp", json=message, headers=headers)).status_code == 413
