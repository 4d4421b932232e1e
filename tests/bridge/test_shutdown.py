"""Start and shutdown: pending replies are delivered, the session is closed, the exit code is 0."""

import asyncio
import json
import os
import signal
import sys
import time

import pytest

META = {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}
DISCOVER = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": META})
DISCOVER = DISCOVER.encode() + b"\n"

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]


def late_result(seconds):
    async def fault(call):
        await asyncio.sleep(seconds)
        await call.result({"late": True})

    return fault


async def test_closing_the_input_delivers_pending_replies(bridge, server):
    await bridge.open()
    server.fail("tools/call", late_result(1), 5)
    numbers = [bridge.call("destroy") for _ in range(5)]
    rest, code = await bridge.end()
    assert sorted(reply["id"] for reply in rest) == numbers
    assert all(reply["result"] == {"late": True} for reply in rest)
    assert code == 0


async def test_an_input_that_is_closed_at_once_ends_the_bridge(legacy, server):
    assert await legacy.end() == ([], 0)
    assert server.calls == []


async def test_closing_the_input_ends_the_session(legacy, server):
    await legacy.open()
    assert await legacy.end() == ([], 0)
    assert server.calls[-1].name == "DELETE"
    assert server.sessions == set()


@pytest.mark.slow
async def test_a_call_longer_than_ten_seconds_gets_an_error_at_shutdown(legacy, server, faults):
    await legacy.open()
    server.fail("tools/call", faults.silent)
    number = legacy.call("destroy")
    start = time.monotonic()
    rest, code = await legacy.end()
    assert time.monotonic() - start > 9  # `end` itself waits no longer than 20 s
    assert [reply["id"] for reply in rest] == [number]
    assert rest[0]["error"]["data"]["reason"] == "Closing"
    assert code == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_bridge_within_two_seconds(bridge, server, faults, number):
    await bridge.open()
    server.fail("tools/call", late_result(0.3))
    server.fail("tools/call", faults.silent)
    first = bridge.call("look")
    await server.until("tools/call")
    second = bridge.call("destroy")
    await server.until("tools/call", 2)
    start = time.monotonic()
    bridge.process.send_signal(number)
    assert (await bridge.reply(first))["result"] == {"late": True}
    assert (await bridge.reply(second))["error"]["data"]["reason"] == "Closing"
    async with asyncio.timeout(10):
        assert await bridge.process.wait() == 0
    assert time.monotonic() - start < 2
    assert server.sessions == set()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
async def test_a_signal_shortens_the_wait_for_pending_replies(bridge, server, faults):
    await bridge.open()
    server.fail("tools/call", faults.silent)
    bridge.call("destroy")
    await server.until("tools/call")
    bridge.process.stdin.close()
    start = time.monotonic()
    await asyncio.sleep(0.5)  # by now it waits for the call
    bridge.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(10):
        assert await bridge.process.wait() == 0
    assert time.monotonic() - start < 2.5


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
async def test_a_signal_interrupts_the_wait_for_a_retry(bridge, server, faults):
    await bridge.open()
    server.fail("tools/call", faults.status(429, headers={"retry-after": "15"}))
    number = bridge.call("destroy")
    await server.until("tools/call")
    bridge.process.send_signal(signal.SIGTERM)
    start = time.monotonic()
    assert (await bridge.reply(number))["error"]["data"]["reason"] == "Closing"
    async with asyncio.timeout(10):
        assert await bridge.process.wait() == 0
    assert time.monotonic() - start < 2
    assert len(server.of("tools/call")) == 1


async def test_a_client_that_closes_its_output_ends_the_bridge(bridge, server):
    await bridge.open()
    bridge.process._transport.get_pipe_transport(1).close()
    bridge.call("look")
    async with asyncio.timeout(10):
        assert await bridge.process.wait() == 0


@pytest.mark.skipif(sys.platform == "win32", reason="the parent is a shell")
async def test_the_bridge_ends_with_its_parent_process(bridges, server):
    ours, theirs = os.pipe()
    script = "import subprocess, sys; print(subprocess.Popen(sys.argv[1:]).wait())"
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, *bridges.command(), "--url", server.url),
        stdin=ours,
        stdout=asyncio.subprocess.PIPE,
        env=bridges.environment(),
    )
    os.close(ours)
    os.write(theirs, DISCOVER)
    assert b"supportedVersions" in await parent.stdout.readline()
    parent.kill()
    async with asyncio.timeout(10):
        assert await parent.stdout.read() == b""  # it ends once both processes have closed it
    await parent.wait()
    os.close(theirs)


async def test_the_bridge_waits_for_a_server_that_starts_later(bridges, faults, modern):
    async with faults.running() as server:
        await server.stop()
        async with bridges.running("--url", server.url, modern=modern) as bridge:
            opened = asyncio.create_task(bridge.open())
            await asyncio.sleep(2)  # the time it takes the server to come
            await server.start()
            assert await opened


async def test_an_unreachable_server_is_reported_after_the_longer_retries(bridges, faults):
    async with faults.running() as server:
        await server.stop()
        async with bridges.running("--url", server.url, short_retries=True) as bridge:
            start = time.monotonic()
            reply = await bridge.initialize()
            assert time.monotonic() - start > 4  # longer than the retries of an open session
            assert reply["error"]["data"]["reason"] == "Unreachable"
            await server.start()
            assert await bridge.open()
