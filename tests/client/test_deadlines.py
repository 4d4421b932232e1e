"""One deadline around any number of calls."""

import asyncio

import anyio
import httpx2 as httpx
import pytest

from proxmox_client import ApiToken, Client, DeadlineExceeded, Limits, deadline
from proxmox_client.deadlines import bounded, remaining

pytestmark = pytest.mark.anyio


@pytest.fixture
def silent():
    """Make clients of clusters that never answer."""

    async def never(request: httpx.Request) -> httpx.Response:
        async with asyncio.timeout(5):
            await asyncio.Event().wait()
        raise AssertionError("nobody sets this event")

    def make(limits: Limits | None = None) -> Client:
        wire = httpx.MockTransport(never)
        return Client(["pve1"], ApiToken("a@pve!b", "c"), limits=limits or Limits(), wire=wire)

    return make


async def test_it_bounds_calls_of_several_clusters_and_of_tasks_started_inside(silent):
    with deadline(0.05):
        calls = [asyncio.create_task(silent().version()) for _ in range(3)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(answer) for answer in answers] == [DeadlineExceeded] * 3


async def test_an_inner_deadline_can_only_shorten_it(silent):
    with deadline(0.05), deadline(1000):
        with pytest.raises(DeadlineExceeded):
            await silent().version()
        with deadline(0.01):
            assert remaining() <= 0.01


async def test_it_ends_with_its_block(silent):
    with deadline(10):
        assert remaining() > 5
    assert remaining() is None


async def test_a_deadline_that_has_passed_asks_nothing(client, pve):
    pve.answer("GET /version", {"version": "9.2.11"})
    with deadline(-1), pytest.raises(DeadlineExceeded):
        await client.version()
    assert pve.requests == []


async def test_an_operation_is_bounded_even_without_one(silent):
    with pytest.raises(DeadlineExceeded, match=r"GET /version took longer than 0\.05 s"):
        await silent(Limits(timeout=0.05)).version()


async def test_waiting_for_a_turn_counts(silent):
    client = silent(Limits(per_cluster=1))
    first = asyncio.create_task(client.version())
    await anyio.wait_all_tasks_blocked()
    with deadline(0.05), pytest.raises(DeadlineExceeded):
        await client.nodes()
    first.cancel()
    assert isinstance((await asyncio.gather(first, return_exceptions=True))[0], BaseException)


async def test_somebody_elses_timeout_stays_their_own():
    with pytest.raises(TimeoutError, match="theirs"):
        async with bounded(10, "work"):
            raise TimeoutError("theirs")


async def test_cancellation_is_not_a_deadline(silent):
    call = asyncio.create_task(silent().version())
    await anyio.wait_all_tasks_blocked()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
