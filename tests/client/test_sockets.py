"""Sockets: closed soon after their last request, and bounded over all clients."""

import asyncio
from dataclasses import dataclass, field

import httpx2 as httpx
import pytest

from proxmox_client import ApiToken, Client, DeadlineExceeded, SocketBudget, deadline
from proxmox_client.transport import KEEPALIVE_EXPIRY

pytestmark = pytest.mark.anyio
TOKEN = ApiToken("mcp@pve!full", "0f0e0d0c-secret")
MOST = 3


@dataclass
class Connections(httpx.AsyncBaseTransport):
    """A transport that counts how often it was closed; its requests take until `answers` is set."""

    answers: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0
    closed: int = 0

    async def handle_async_request(self, _request: httpx.Request) -> httpx.Response:
        self.waiting += 1
        try:
            await self.answers.wait()
        finally:
            self.waiting -= 1
        return httpx.Response(200, json={"data": {"version": "9.2", "release": "9.2"}})

    async def aclose(self) -> None:
        self.closed += 1


def opened(name: str = "pve1", budget: SocketBudget | None = None) -> tuple[Client, Connections]:
    connections = Connections()
    return Client([name], TOKEN, http_transport=connections, sockets=budget), connections


async def started(*clients: Client) -> list[asyncio.Task]:
    """Send a request of each client."""
    tasks = [asyncio.create_task(client.version()) for client in clients]
    await turns()
    return tasks


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_idle_connections_are_closed_without_another_request(fast_clock):
    client, connections = opened()
    connections.answers.set()
    for further in range(3):
        await client.version()
        await asyncio.sleep(KEEPALIVE_EXPIRY - 1)
        await client.version()  # in time, so it uses the same connections
        assert connections.closed == further
        await asyncio.sleep(KEEPALIVE_EXPIRY + 0.1)
        assert connections.closed == further + 1


async def test_connections_in_use_are_kept_however_long_a_request_takes(fast_clock):
    client, connections = opened()
    [task] = await started(client)
    await asyncio.sleep(KEEPALIVE_EXPIRY * 3)
    assert connections.closed == 0
    connections.answers.set()
    await task


async def test_a_retired_client_answers_and_keeps_nothing_open():
    idle, of_idle = opened()
    of_idle.answers.set()
    await idle.version()
    busy, of_busy = opened()
    [task] = await started(busy)
    for client in (idle, busy):
        client.retire()
    await turns()
    assert (of_idle.closed, of_busy.closed) == (1, 0), "never under a request"
    of_busy.answers.set()
    await task
    await turns()
    assert of_busy.closed == 1
    await busy.version()  # the next request of the same call
    await turns()
    assert of_busy.closed == 2


async def test_requests_beyond_the_bound_wait_and_are_answered():
    budget = SocketBudget(MOST)
    pairs = [opened(f"pve{n}", budget) for n in range(10)]
    tasks = await started(*(client for client, _ in pairs))
    for _ in range(len(pairs)):
        waiting = [each for _, each in pairs if each.waiting]
        assert len(waiting) == min(MOST, sum(not task.done() for task in tasks))
        if waiting:
            waiting[0].answers.set()
            await turns()
    assert all(task.done() for task in tasks)


async def test_idle_connections_make_room_the_longest_idle_first():
    budget = SocketBudget(MOST)
    pairs = [opened(f"pve{n}", budget) for n in range(MOST + 1)]
    for client, connections in pairs:
        connections.answers.set()
        await client.version()
    assert [connections.closed for _, connections in pairs] == [1, 0, 0, 0]
    assert budget.used == MOST


async def test_every_place_comes_back(fast_clock):
    budget = SocketBudget(MOST)
    pairs = [opened(f"pve{n}", budget) for n in range(6)]
    tasks = await started(*(client for client, _ in pairs))
    tasks[0].cancel()
    tasks[-1].cancel()  # one that has a place, and one that waits for it
    for _, connections in pairs:
        connections.answers.set()
    await asyncio.wait(tasks)
    with pytest.raises(DeadlineExceeded), deadline(0.0):
        await pairs[0][0].version()
    for client, _ in pairs[:3]:
        await client.aclose()
    await asyncio.sleep(KEEPALIVE_EXPIRY + 1)
    assert budget.used == 0
    assert budget.waiting == 0


async def test_waiting_for_a_place_is_no_failure_of_the_cluster(fast_clock):
    budget = SocketBudget(1)
    first, of_first = opened("pve1", budget)
    other, of_other = opened("pve2", budget)
    tasks = await started(first, other)
    await asyncio.sleep(10)
    of_first.answers.set()
    await asyncio.sleep(10)  # together longer than a read of a cluster may take
    of_other.answers.set()
    await asyncio.wait(tasks)
    assert [task.result().release for task in tasks] == ["9.2", "9.2"]
