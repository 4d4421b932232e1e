"""Shutdown: running calls finish, streams are ended, and the process exits with 0."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import anyio
import httpx2 as httpx
import pytest
from mcp.client import Client
from mcp.client.sse import sse_client
from tests.ports import free_port
from tests.server.conftest import Modern

from pvemcp_server.access import open_access
from pvemcp_server.config import Config
from pvemcp_server.settings import Settings
from pvemcp_server.store import open_store

pytestmark = pytest.mark.anyio

LISTEN = {"notifications": {"toolsListChanged": True}}


async def begin_drain(served, fake_tools, tasks):
    """Drain the server once the call is running; return when new calls are refused."""
    await fake_tools.started.wait()
    tasks.start_soon(served.app.endpoint.drain)
    while not served.app.endpoint.active_requests.closing:
        await anyio.lowlevel.checkpoint()


async def test_running_calls_finish_while_new_ones_are_refused(serving, fake_tools):
    results = []
    async with serving() as served:
        modern = served.modern

        async def call():
            results.append(await modern.call("Wait"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            with anyio.fail_after(20):
                await begin_drain(served, fake_tools, tasks)
                refused = await modern.send("tools/list")
                ready = await served.http.get("/readyz")
                fake_tools.release.set()
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    assert (ready.status_code, ready.json()) == (503, {"status": "shutting down"})
    assert "waited" in results[0]["result"]["content"][0]["text"]


async def test_calls_are_served_until_the_balancer_has_noticed(serving, monkeypatch):
    leaving = anyio.Event()
    monkeypatch.setattr("pvemcp_server.http.exchange.LEAVING_SECONDS", 0.5)
    async with serving() as served:
        idle = served.modern  # its connection stays open
        first = await idle.send("tools/list")
        active_requests = served.app.endpoint.active_requests
        monkeypatch.setattr(active_requests, "leave", _announced(active_requests.leave, leaving))
        assert (await served.http.get("/readyz")).status_code == 200
        served.server.stop()
        with anyio.fail_after(20):
            await leaving.wait()
        async with httpx.AsyncClient(base_url=served.url) as balancer:
            ready = await balancer.get("/readyz")
            answers = [await Modern(balancer, idle.path).send("tools/list") for _ in range(3)]
            answers.append(await idle.send("tools/list"))
    assert (ready.status_code, ready.json()) == (503, {"status": "shutting down"})
    assert [answer.status_code for answer in answers] == [200] * 4
    assert {answer.headers["connection"] for answer in answers} == {"close"}
    assert "connection" not in first.headers


def _announced(leave, leaving):
    def begin():
        seconds = leave()
        leaving.set()
        return seconds

    return begin


async def test_a_server_without_a_balancer_stops_at_once(served):
    assert served.app.leave() == 0


async def test_waiting_connections_are_served_when_the_listener_closes(served):
    host, port = served.url.removeprefix("http://").split(":")
    # connected and sent before the event loop of the server accepts anything more
    waiting = [socket.create_connection((host, int(port))) for _ in range(5)]
    for each in waiting:
        each.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    served.server.stop()
    with anyio.fail_after(20):
        answers = [await anyio.to_thread.run_sync(each.recv, 1000) for each in waiting]
        while served.server.accepts:
            await anyio.lowlevel.checkpoint()
    for each in waiting:
        each.close()
    assert all(answer.startswith(b"HTTP/1.1 200 OK") for answer in answers)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))


async def test_a_call_that_does_not_end_is_cancelled(serving, fake_tools, monkeypatch):
    monkeypatch.setattr("pvemcp_server.mcp.endpoint.DRAIN_SECONDS", 0.01)
    results = []
    async with serving() as served, anyio.create_task_group() as tasks:

        async def call():
            results.append(await served.modern.call("Wait"))

        tasks.start_soon(call)
        with anyio.fail_after(20):
            await fake_tools.started.wait()
            assert await served.app.endpoint.drain() is False
            await fake_tools.cancelled.wait()
        (entry,) = await served.recorded()
    assert results[0]["result"]["isError"] is True
    assert "shutting down" in results[0]["result"]["content"][0]["text"]
    assert (entry.outcome, entry.reason) == ("cancelled", "cancelled by the server")


async def test_a_request_that_does_not_arrive_is_not_awaited(served, monkeypatch):
    monkeypatch.setattr("pvemcp_server.mcp.endpoint.DRAIN_SECONDS", 0.01)
    active_requests, (host, port) = (
        served.app.endpoint.active_requests,
        served.url.removeprefix("http://").split(":"),
    )
    head = f"POST /mcp/{served.key} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
    with anyio.fail_after(20):
        async with await anyio.connect_tcp(host, int(port)) as stream:
            await stream.send(head.encode() + b"{")
            while not active_requests.calls:
                await anyio.lowlevel.checkpoint()
            assert await served.app.endpoint.drain() is False
            assert (await stream.receive()).startswith(b"HTTP/1.1 503 ")
    assert active_requests.calls == 0


async def test_a_session_is_answered_after_the_stop(serving, fake_tools):
    results = []
    async with serving() as served, anyio.create_task_group() as tasks:

        async def call():
            async with Client(served.mcp, mode="legacy") as client:
                await client.list_tools()
                results.append(await client.call_tool("Wait", progress_callback=on_progress))

        async def on_progress(*_report):
            """Read the report, so that the client listens."""

        tasks.start_soon(call)
        with anyio.fail_after(20):
            await fake_tools.started.wait()
            served.server.stop()
            while not served.app.endpoint.active_requests.closing:
                await anyio.lowlevel.checkpoint()
            await anyio.sleep(0.6)  # sse-starlette looks for a shutdown twice a second
            fake_tools.release.set()
    assert "waited" in results[0].content[0].text


async def test_a_call_that_waits_for_a_task_returns_its_upid(demo_served):
    backup = {"cluster_name": "home-lab", "vmid": 101, "wait": True}
    answers, begun = [], anyio.Event()

    async def on_progress(*_report):
        begun.set()

    async with Client(demo_served.mcp) as client, anyio.create_task_group() as tasks:

        async def call():
            await client.list_tools()
            answers.append(
                await client.call_tool("BackupVm", backup, progress_callback=on_progress)
            )

        tasks.start_soon(call)
        with anyio.fail_after(20):
            await begun.wait()
            assert await demo_served.app.endpoint.drain() is True
    data, notes = (block.text for block in answers[0].content)
    assert '"upid":"UPID:' in data
    assert notes.strip() == (
        "The server is shutting down; the task is still running: GetTask with this upid returns "
        "its outcome."
    )


async def test_a_call_over_http_and_sse_is_awaited(serving, fake_tools):
    results = []
    async with serving() as served, anyio.create_task_group() as tasks:

        async def call():
            address = sse_client(f"{served.url}/sse/{served.key}")
            async with Client(address, mode="legacy") as client:
                await client.list_tools()
                results.append(await client.call_tool("Wait"))

        tasks.start_soon(call)
        with anyio.fail_after(20):
            await begin_drain(served, fake_tools, tasks)
            fake_tools.release.set()
    assert "waited" in results[0].content[0].text


async def test_a_listen_stream_ends_with_its_result(served):
    modern = served.modern
    async with served.http.stream(
        "POST",
        modern.path,
        json=modern.message("subscriptions/listen", LISTEN),
        headers=modern.headers("subscriptions/listen"),
    ) as stream:
        frames = messages(stream)
        with anyio.fail_after(20):
            acknowledged = await anext(frames)
            await served.app.endpoint.drain()
            result = await anext(frames)
    assert acknowledged["method"] == "notifications/subscriptions/acknowledged"
    assert (result["id"], result["result"]["resultType"]) == (1, "complete")


async def messages(stream):
    async for line in stream.aiter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


@pytest.mark.e2e
async def test_sigterm_exits_with_0_while_streams_are_open(tmp_path):
    key = await prepared(tmp_path)
    port = free_port()
    process = started(tmp_path, port)
    try:
        base = f"http://127.0.0.1:{port}"
        head = {"X-API-Key": key}
        # connections wait from the first moment on, until the start is through
        async with httpx.AsyncClient(base_url=base, headers=head, timeout=30) as http:
            with anyio.fail_after(30):
                await until_ready(http)
            async with (
                http.stream("GET", "/sse"),
                http.stream("POST", "/mcp", **listen_request()) as listening,
            ):
                assert listening.status_code == 200
                process.send_signal(signal.SIGTERM)
                with anyio.fail_after(15):
                    log = await anyio.to_thread.run_sync(process.communicate)
    finally:
        process.kill()
    assert process.returncode == 0, log
    assert "Traceback" not in log[1]
    assert key not in log[1]


def started(folder, port):
    return subprocess.Popen(
        [Path(sys.executable).with_name("pvemcp"), "serve", "--port", str(port)],
        env={**os.environ, "PVEMCP_STATE_DIR": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def listen_request():
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {**LISTEN, "_meta": meta}
    return {
        "json": {"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": params},
        "headers": {
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2026-07-28",
            "Mcp-Method": "subscriptions/listen",
        },
    }


async def prepared(folder):
    """Create a state with the endpoint enabled; return a key."""
    async with open_store(Config(state_dir=folder)) as store, open_access(store) as access:
        await Settings(store).change({"enabled": True}, by="test")
        _, secret = await access.keys.create("test")
    return secret


async def until_ready(http):
    while True:
        try:
            if (await http.get("/readyz")).status_code == 200:
                return
        except httpx.ConnectError:
            await anyio.sleep(0.05)
