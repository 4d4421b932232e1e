"""Deadlines around any number of calls."""

import asyncio

import anyio
import httpx2 as httpx
import pytest

from proxmox_client import ApiToken, Client, DeadlineExceeded, Limits, deadline
from proxmox_client.limits import remaining, time_limit

pytestmark = pytest.mark.anyio


@pytest.fixture
def hanging_client():
    """Create clients of clusters that never answer."""

    async def never(request: httpx.Request) -> httpx.Response:
        async with asyncio.timeout(5):
            await asyncio.Event().wait()
        raise AssertionError("this event is never set")

    def make(limits: Limits | None = None) -> Client:
        token = ApiToken("a@pve!b", "c")
        transport = httpx.MockTransport(never)
        return Client(["pve1"], token, limits=limits or Limits(), http_transport=transport)

    return make


async def test_a_deadline_covers_several_clusters_and_tasks_started_inside(hanging_client):
    with deadline(0.05):
        calls = [asyncio.create_task(hanging_client().version()) for _ in range(3)]
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [DeadlineExceeded] * 3


async def test_an_inner_deadline_can_only_shorten_the_outer_one(hanging_client):
    with deadline(0.05), deadline(1000):
        with pytest.raises(DeadlineExceeded):
            await hanging_client().version()
        with deadline(0.01):
            assert remaining() <= 0.01


async def test_a_deadline_ends_with_its_block(hanging_client):
    with deadline(10):
        assert remaining() > 5
    assert remaining() is None


async def test_no_request_is_sent_after_the_deadline(client, pve):
    pve.answer("GET /version", {"version": "9.2.11"})
    with deadline(-1), pytest.raises(DeadlineExceeded):
        await client.version()
    assert pve.requests == []


async def test_the_timeout_applies_without_a_deadline(hanging_client):
    with pytest.raises(DeadlineExceeded, match=r"GET /version took longer than 0\.05 s"):
        await hanging_client(Limits(timeout=0.05)).version()


async def test_waiting_for_a_slot_counts(hanging_client):
    client = hanging_client(Limits(per_cluster=1))
    first = asyncio.create_task(client.version())
    await anyio.wait_all_tasks_blocked()
    with deadline(0.05), pytest.raises(DeadlineExceeded):
        await client.nodes()
    first.cancel()
    assert isinstance((await asyncio.gather(first, return_exceptions=True))[0], BaseException)


async def test_a_timeout_of_the_body_passes_through():
    with pytest.raises(TimeoutError, match="own"):
        async with time_limit(10, "work"):
            raise TimeoutError("own")


async def test_cancellation_is_not_a_timeout(hanging_client):
    call = asyncio.create_task(hanging_client().version())
    await anyio.wait_all_tasks_blocked()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
