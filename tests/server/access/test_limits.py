"""Rate limits and concurrency limits."""

import anyio
import pytest

from pvemcp_server.access.limits import (
    MOST_BUCKETS,
    MOST_WAITING,
    CallLimits,
    FairQueue,
    FairTurns,
    RateLimiter,
)
from pvemcp_server.errors import Busy, OverBudget
from pvemcp_server.networks import network_of

pytestmark = pytest.mark.anyio


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


async def test_a_bucket_empties_and_refills_evenly():
    clock = Clock()
    limiter = RateLimiter(clock=clock)
    assert [await limiter.take("a", 3) for _ in range(4)] == [True, True, True, False]
    clock.seconds = 20
    assert [await limiter.take("a", 3) for _ in range(2)] == [True, False]
    clock.seconds = 3600
    assert [await limiter.take("a", 3) for _ in range(4)] == [True, True, True, False]


async def test_a_returned_token_can_be_taken_once():
    limiter = RateLimiter(clock=Clock())
    limiter.give_back("a")
    assert await limiter.take("a", 1)
    limiter.give_back("a")
    assert [await limiter.take("a", 1) for _ in range(2)] == [True, False]


async def test_each_name_has_its_own_bucket():
    limiter = RateLimiter(clock=Clock())
    assert await limiter.take("a", 1)
    assert await limiter.take("b", 1)
    assert not await limiter.take("a", 1)


async def test_the_number_of_buckets_is_limited():
    limiter = RateLimiter(clock=Clock())
    for number in range(MOST_BUCKETS + 50):
        await limiter.take(str(number), 1)
    assert len(limiter._buckets) == MOST_BUCKETS
    assert await limiter.take("0", 1)


async def test_a_call_beyond_the_rate_names_the_limit():
    limits = CallLimits(clock=Clock())
    await limits.check_rate("key", 1)
    with pytest.raises(OverBudget, match="More than 1 call a minute"):
        await limits.check_rate("key", 1)


async def test_slots_are_released_after_an_error():
    limits = CallLimits()
    async with limits.running("key", 1):
        with pytest.raises(OverBudget, match="running already"):
            async with limits.running("key", 1):
                pass
        async with limits.running("other", 1):
            pass
    with pytest.raises(ValueError, match="broken"):
        async with limits.running("key", 1):
            raise ValueError("broken")
    async with limits.running("key", 1):
        pass
    assert not limits._running


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("unix", "unix"),
    ],
)
def test_addresses_are_limited_by_their_network(address: str, network: str):
    assert network_of(address) == network


async def test_turns_are_fair_and_an_actor_waits_in_a_bounded_queue():
    turns, served = FairTurns(2), []
    running = most = 0

    async def work(actor):
        nonlocal running, most
        try:
            async with turns.turn(actor):
                running += 1
                most = max(most, running)
                await anyio.lowlevel.checkpoint()
                running -= 1
                served.append(actor)
        except Busy:
            served.append("refused")

    async with anyio.create_task_group() as group:
        for _ in range(MOST_WAITING + 5):
            group.start_soon(work, "greedy")
        group.start_soon(work, "ada")
        group.start_soon(work, "grace")
    assert most == 2
    assert served.count("greedy") == 1 + MOST_WAITING
    assert served.count("refused") == 4
    others = [actor for actor in served if actor != "refused"]
    assert {"ada", "grace"} <= set(others[:5])


async def test_a_request_that_is_cancelled_leaves_its_turn_to_the_next():
    turns = FairTurns(1)
    async with anyio.create_task_group() as group, turns.turn("ada"):
        for _ in range(3):
            group.start_soon(_waiting, turns)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    async with turns.turn("ada"):
        pass


async def _waiting(turns: FairTurns) -> None:
    async with turns.turn("ada"):
        raise AssertionError("it was not this one's turn")


async def test_sources_of_a_fair_queue_take_turns_with_one_request_each():
    queue, turns, release = FairQueue(2), [], anyio.Event()

    async def request(source):
        async with queue.turn(source):
            turns.append(source)
            await release.wait()

    async with anyio.create_task_group() as tasks:
        for source in "aaaaabc":
            tasks.start_soon(request, source)
        await anyio.wait_all_tasks_blocked()
        assert turns == ["a", "b"], "one request of each source at a time"
        release.set()
    assert turns == [*"abc", *"aaaa"]


async def test_a_full_queue_of_one_source_refuses_it_and_no_other():
    queue, release = FairQueue(2), anyio.Event()

    async def request():
        async with queue.turn("a"):
            await release.wait()

    async with anyio.create_task_group() as tasks:
        for _ in range(MOST_WAITING + 1):
            tasks.start_soon(request)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(OverBudget, match="wait already"):
            async with queue.turn("a"):
                pass
        async with queue.turn("b"):
            release.set()
