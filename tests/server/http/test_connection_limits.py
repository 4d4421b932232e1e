"""Limits of open connections: stalled clients do not keep others out."""

import asyncio
from contextlib import AsyncExitStack

import anyio
import httpx2 as httpx
import pytest

from pvemcp_server.http import server as http_server_module
from pvemcp_server.http.connection import HttpConnection
from pvemcp_server.http.connection_limits import (
    LOOPBACK,
    ConnectionLimits,
)
from pvemcp_server.http.hosts import networks

ADDRESS, OTHER = "192.0.2.1", "192.0.2.2"


class Connection:
    evicted = False

    def evict(self) -> None:
        self.evicted = True


def opened(limits, address, count=1):
    """Open connections that are admitted."""
    connections = [Connection() for _ in range(count)]
    assert all(limits.open(connection, address) for connection in connections)
    return connections


def test_the_longest_waiting_connection_makes_room_for_a_new_one():
    limits = ConnectionLimits(total=3, per_address=3)
    first, second, third = opened(limits, ADDRESS, 3)
    limits.work(first)
    limits.wait(second)  # again, and so later than the third
    opened(limits, OTHER)
    assert [one.evicted for one in (first, second, third)] == [False, False, True]


def test_an_address_beyond_its_limit_closes_its_own_connections_only():
    limits = ConnectionLimits(total=100, per_address=2)
    [other] = opened(limits, OTHER)
    flood = opened(limits, ADDRESS, 50)
    assert [one.evicted for one in flood] == [True] * 48 + [False] * 2
    assert not other.evicted


def test_a_connection_that_works_is_never_closed():
    limits = ConnectionLimits(total=2, per_address=2)
    for connection in opened(limits, ADDRESS, 2):
        limits.work(connection)
    refused = Connection()
    assert not limits.open(refused, OTHER)
    limits.close(refused)
    limits.wait(refused)
    assert refused not in limits._waiting


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "10.0.0.1", ""])
def test_clients_behind_loopback_and_trusted_proxies_are_limited_in_total_only(proxies, address):
    limits = ConnectionLimits(total=50, per_address=2, shared=(*LOOPBACK, *proxies))
    assert [one.evicted for one in opened(limits, address, 50)] == [False] * 50


@pytest.fixture
def proxies():
    return networks(["10.0.0.0/8"])


def test_closed_connections_leave_nothing_behind():
    limits = ConnectionLimits(total=10, per_address=5)
    for connection in opened(limits, ADDRESS, 5) + opened(limits, "::1", 5):
        limits.close(connection)
        limits.close(connection)
    assert not limits._open
    assert not limits._waiting
    assert not limits._count


def test_requests_of_strangers_have_so_many_bytes_in_total():
    limits = ConnectionLimits(total=10, per_address=10, most_held=100)
    working, idle, *slow = opened(limits, ADDRESS, 5)
    limits.hold(working, 60)
    limits.work(working)
    limits.hold(slow[0], 20)
    limits.hold(slow[1], 20)
    limits.hold(slow[1], 20)
    assert not any(one.evicted for one in slow)
    limits.hold(slow[2], 90)  # more than is left without those that wait
    assert [one.evicted for one in (working, idle, *slow)] == [False, False, True, True, True]
    limits.hold(working, 0)
    limits.close(working)
    assert limits._held_in_total == 0


def test_full_limits_are_warned_of_once_a_minute(caplog):
    limits = ConnectionLimits(total=1, per_address=1, clock=lambda: 0.0)
    opened(limits, ADDRESS, 5)
    assert len(caplog.records) == 1


STALLED = {
    "nothing": b"",
    "a part of a head": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
    "a part of a form": b"POST /admin/sign-in HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 99\r\n\r\nname=",
    "a part of a body": b"POST /admin/api/session HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
    "a request, then nothing": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.anyio
@pytest.mark.parametrize("sent", STALLED.values(), ids=STALLED)
async def test_stalled_connections_do_not_keep_healthz_from_answering(serving, monkeypatch, sent):
    limits = ConnectionLimits(total=20, per_address=10)
    monkeypatch.setattr(http_server_module, "connection_limits", lambda _: limits)
    async with serving() as served, AsyncExitStack() as stack:
        host, port = served.url.removeprefix("http://").split(":")
        for _ in range(60):
            stream = await stack.enter_async_context(await anyio.connect_tcp(host, int(port)))
            await stream.send(sent or b"")
        async with httpx.AsyncClient(base_url=served.url, timeout=10) as fresh:
            assert (await fresh.get("/healthz")).status_code == 200
        assert len(limits._open) <= 20


LARGE = {
    "a head": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: y\r\nX-Large: " + b"x" * 14_000,
    "a form": STALLED["a part of a form"].replace(b"99", b"16000") + b"x" * 14_000,
    "a body": STALLED["a part of a body"].replace(b"99", b"16000") + b" " * 14_000,
    "a body that is not read": b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Length: 200000\r\n\r\n" + b"x" * 14_000,
}


@pytest.mark.anyio
async def test_large_requests_of_strangers_take_little_memory_in_total(serving, monkeypatch):
    limits = ConnectionLimits(total=50, per_address=50, most_held=100_000)
    monkeypatch.setattr(http_server_module, "connection_limits", lambda _: limits)
    async with serving() as served, AsyncExitStack() as stack:
        host, port = served.url.removeprefix("http://").split(":")
        held = []
        hold = limits.hold
        monkeypatch.setattr(
            limits, "hold", lambda *of: (hold(*of), held.append(limits._held_in_total))
        )
        for sent in LARGE.values():
            for _ in range(10):
                stream = await stack.enter_async_context(await anyio.connect_tcp(host, int(port)))
                await stream.send(sent)
            async with httpx.AsyncClient(base_url=served.url, timeout=10) as fresh:
                assert (await fresh.get("/healthz")).status_code == 200
        assert 50_000 < max(held) <= 100_000
        async with httpx.AsyncClient(base_url=served.url, timeout=10) as fresh:
            await served.modern.call("ListVms")
            assert (await fresh.get("/healthz")).status_code == 200


@pytest.fixture
def stalled(monkeypatch):
    """Return a queue of the connections whose clients have begun to read nothing."""
    seen, pause = asyncio.Queue(), HttpConnection.pause_writing

    def pause_writing(connection):
        pause(connection)
        seen.put_nowait(connection)

    monkeypatch.setattr(HttpConnection, "pause_writing", pause_writing)
    return seen


DOWNLOADS = 300  # more than the buffers of both ends hold
DOWNLOAD = b"GET /admin/static/htmx.min.js HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.anyio
async def test_clients_that_read_nothing_do_not_keep_healthz_from_answering(
    serving, monkeypatch, stalled
):
    limits = ConnectionLimits(total=3, per_address=3)
    monkeypatch.setattr(http_server_module, "connection_limits", lambda _: limits)
    async with serving() as served, AsyncExitStack() as stack:
        host, port = served.url.removeprefix("http://").split(":")
        with anyio.fail_after(20):
            for _ in range(3):
                stream = await stack.enter_async_context(await anyio.connect_tcp(host, int(port)))
                await stream.send(DOWNLOAD * DOWNLOADS)
            assert len({await stalled.get() for _ in range(3)}) == 3
        async with httpx.AsyncClient(base_url=served.url, timeout=10) as fresh:
            assert (await fresh.get("/healthz")).status_code == 200


@pytest.mark.anyio
async def test_a_client_that_reads_again_is_no_longer_waited_for(serving, monkeypatch, stalled):
    limits = ConnectionLimits(total=1, per_address=1)
    monkeypatch.setattr(http_server_module, "connection_limits", lambda _: limits)
    async with serving() as served:
        host, port = served.url.removeprefix("http://").split(":")
        async with await anyio.connect_tcp(host, int(port)) as stream:
            await stream.send(DOWNLOAD * DOWNLOADS)
            with anyio.fail_after(20):
                connection = await stalled.get()
                assert connection in limits._waiting
                connection.resume_writing()
                assert connection in limits._waiting  # for the sake of pipelined requests
                connection.pause_writing()
                connection.pipeline.clear()
                connection._unparsed = b""
                connection.resume_writing()
                assert connection not in limits._waiting


@pytest.mark.anyio
async def test_a_new_connection_is_refused_while_all_others_work(serving, monkeypatch, fake_tools):
    limits = ConnectionLimits(total=1, per_address=1)
    monkeypatch.setattr(http_server_module, "connection_limits", lambda _: limits)
    async with serving() as served, anyio.create_task_group() as tasks:
        tasks.start_soon(served.modern.call, "Wait")
        with anyio.fail_after(20):
            await fake_tools.started.wait()
        async with httpx.AsyncClient(base_url=served.url, timeout=10) as fresh:
            answer = await fresh.get("/healthz")
        fake_tools.release.set()
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
