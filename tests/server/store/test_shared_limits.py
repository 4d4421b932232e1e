"""Limits that hold for several processes on one PostgreSQL database together."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from time import monotonic

import anyio
import pytest
from asyncpg import InternalClientError
from tests.server.store.part import taking_part

from pvemcp_server.access.limits import CallLimits
from pvemcp_server.config import Config
from pvemcp_server.errors import OverBudget, StateUnavailable
from pvemcp_server.store import Store, open_store, shared_limits

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]


@pytest.fixture
def config(tmp_path: Path, new_postgres_database: Callable[[], str]) -> Config:
    return Config(state_dir=tmp_path / "var", database_url=new_postgres_database())


@pytest.fixture
async def stores(config: Config, store: Store) -> AsyncIterator[list[Store]]:
    """Start three processes that take part, and give nothing back by themselves."""
    async with AsyncExitStack() as stack:
        more = [await stack.enter_async_context(open_store(config)) for _ in range(2)]
        await stack.enter_async_context(taking_part(store, *more))
        yield [store, *more]


async def admitted(store: Store, per_minute: int) -> int:
    """Return how many calls a process admits in a row."""
    number = 0
    while await store.shared_limits.take("key", per_minute):
        number += 1
    return number


async def test_processes_together_admit_the_rate_of_one(stores):
    began, counts = monotonic(), []

    async def call(store: Store) -> None:
        counts.append(await admitted(store, 60))

    async with anyio.create_task_group() as tasks:
        for store in stores * 3:
            tasks.start_soon(call, store)
    assert 60 <= sum(counts) <= 60 + (monotonic() - began)


async def test_calls_of_one_process_take_few_statements(stores, monkeypatch):
    sent = []
    fetch = stores[0].fleet.fetch

    async def counted(sql, *arguments):
        sent.append(sql)
        return await fetch(sql, *arguments)

    monkeypatch.setattr(stores[0].fleet, "fetch", counted)
    for _ in range(60):
        assert await stores[0].shared_limits.take("key", 600)
    assert len(sent) == 1
    for _ in range(60):
        assert await stores[0].shared_limits.claim("key", 8)
        stores[0].shared_limits.release("key")
    assert len(sent) == 2


async def test_tokens_that_are_not_used_go_back(stores, monkeypatch):
    one, other, _ = stores
    assert await one.shared_limits.take("key", 60)
    before = await admitted(other, 60)
    assert before < 59
    monkeypatch.setattr(shared_limits, "TOKENS_IDLE_SECONDS", 0.0)
    await one.shared_limits.give_back_idle()
    monkeypatch.setattr(shared_limits, "_EMPTY_SECONDS", 0.0)
    other.shared_limits._tokens["key"].empty_until = 0.0
    assert before + await admitted(other, 60) >= 59


async def test_a_bucket_refills_by_the_clock_of_the_database(stores):
    one, other, _ = stores
    await admitted(one, 60)
    assert not await admitted(other, 60)
    await one.fleet.fetch("UPDATE rate_buckets SET since = since - 30")
    other.shared_limits._tokens["key"].empty_until = 0.0
    assert 30 <= await admitted(other, 60) <= 32


async def test_a_clock_that_was_set_back_stops_no_bucket_for_long(stores):
    one, other, _ = stores
    await admitted(one, 60)
    await one.fleet.fetch("UPDATE rate_buckets SET since = since + 3600")
    assert not await admitted(other, 60)
    (row,) = await one.fleet.fetch(
        "SELECT since <= extract(epoch FROM now()) AS past FROM rate_buckets"
    )
    assert row["past"]


async def test_no_more_calls_run_in_all_processes_than_one_key_may_have(stores):
    running, most, refused = 0, 0, 0
    limits = [CallLimits(store.shared_limits) for store in stores]

    async def call(each: CallLimits) -> None:
        nonlocal running, most, refused
        try:
            async with each.running("tools key", 4, shared=True):
                running += 1
                most = max(most, running)
                await anyio.sleep(0.01)
                running -= 1
        except OverBudget:
            refused += 1

    async def caller(each: CallLimits) -> None:
        for _ in range(5):
            await call(each)

    async with anyio.create_task_group() as tasks:
        for each in limits * 4:
            tasks.start_soon(caller, each)
    assert most == 4
    assert refused < 60
    assert running == 0


async def test_a_place_that_another_process_keeps_without_a_call_is_waited_for(stores, monkeypatch):
    one, other, _ = stores
    assert await one.shared_limits.claim("key", 1)
    assert not await other.shared_limits.claim("key", 1, 0.0)
    one.shared_limits.release("key")
    monkeypatch.setattr(shared_limits, "PLACES_IDLE_SECONDS", 0.0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.shared_limits.give_back_idle)
        assert await other.shared_limits.claim("key", 1, 5.0)


@pytest.mark.parametrize("later", [-3600, 3600], ids=["long ago", "before the clock was set back"])
async def test_what_a_process_held_that_was_killed_is_free(stores, later):
    one, other, _ = stores
    assert await one.shared_limits.claim("key", 1)
    assert not await other.shared_limits.claim("key", 1, 0.0)
    await other.fleet.fetch(
        "UPDATE processes SET seen = seen + $2 WHERE id = $1", one.fleet.id, later
    )
    assert await other.shared_limits.claim("key", 1, 0.0)


async def test_claims_that_a_crash_of_the_database_lost_are_made_again(stores):
    one, other, _ = stores
    assert await one.shared_limits.claim("key", 1)
    await other.fleet.fetch("TRUNCATE claims, processes, rate_buckets")
    one.fleet._session.terminate()
    with suppress(StateUnavailable):
        await one.fleet.fetch("SELECT 1")
    await one.fleet.joined()
    await one.shared_limits.give_back_idle()
    assert not await other.shared_limits.claim("key", 1, 0.0)


async def test_a_caller_that_leaves_holds_no_place(stores, monkeypatch):
    one, other, _ = stores
    for moment in range(20):
        with anyio.move_on_after(0.0001 * moment):
            await one.shared_limits.claim("key", 1)
            one.shared_limits.release("key")
    monkeypatch.setattr(shared_limits, "PLACES_IDLE_SECONDS", 0.0)
    with anyio.fail_after(20):
        while one.shared_limits._places:
            await one.shared_limits.give_back_idle()
            await anyio.lowlevel.checkpoint()
    assert await other.shared_limits.claim("key", 1, 0.0)


@pytest.mark.parametrize("holds", ["running", "on_cluster"])
async def test_a_call_that_is_cancelled_while_it_waits_for_a_place_releases_none(
    stores, monkeypatch, holds
):
    monkeypatch.setattr("pvemcp_server.access.limits.PLACE_SECONDS", 0.2)
    one, other, _ = (CallLimits(store.shared_limits) for store in stores)

    def place(limits: CallLimits):
        if holds == "running":
            return limits.running("key", 1, shared=True)
        return limits.on_cluster("key", "lab", 1)

    async with place(other):
        for _ in range(3):
            with anyio.move_on_after(0.02):
                async with place(one):
                    raise AssertionError("the place is taken")
        with pytest.raises(OverBudget):
            async with place(one):
                raise AssertionError("the place is taken")
    assert all(each.running == 0 for each in one._shared._places.values())


async def test_a_call_that_finds_no_database_releases_no_place(stores, monkeypatch):
    limits = CallLimits(stores[0].shared_limits)

    async def fetch(*_arguments):
        raise StateUnavailable("The state's database does not answer.")

    monkeypatch.setattr(stores[0].fleet, "fetch", fetch)
    with pytest.raises(StateUnavailable):
        async with limits.running("key", 1, shared=True):
            raise AssertionError("it cannot be known whether the place is taken")
    assert all(each.running == 0 for each in limits._shared._places.values())


@pytest.mark.parametrize("kind", ["tokens", "places"])
async def test_an_entry_is_kept_while_a_statement_about_it_runs(stores, monkeypatch, kind):
    limits, began, goes_on = stores[0].shared_limits, anyio.Event(), anyio.Event()
    fetch = stores[0].fleet.fetch

    async def slow(*arguments):
        began.set()
        await goes_on.wait()
        return await fetch(*arguments)

    assert await limits.take("idle", 60)
    assert await limits.claim("idle", 2)
    limits.release("idle")
    monkeypatch.setattr(shared_limits, "TOKENS_IDLE_SECONDS", 0.0)
    monkeypatch.setattr(shared_limits, "PLACES_IDLE_SECONDS", 0.0)
    monkeypatch.setattr(stores[0].fleet, "fetch", slow)
    taken = []

    async def call() -> None:  # its statement also gives back what is idle
        taken.append(await (limits.take("key", 60) if kind == "tokens" else limits.claim("key", 2)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await began.wait()
        limits._forget(monotonic())
        goes_on.set()
    assert taken == [True]


async def test_a_driver_in_the_middle_of_a_statement_is_a_lost_connection(stores, monkeypatch):
    async def broken(*_arguments):
        raise InternalClientError("cannot switch to state 12; another operation is in progress")

    session = stores[0].fleet._session
    monkeypatch.setattr(type(session), "fetch", broken)
    with pytest.raises(StateUnavailable):
        await stores[0].fleet.fetch("SELECT 1")


async def test_a_cluster_that_hangs_takes_no_more_places_of_all_processes(stores, monkeypatch):
    monkeypatch.setattr("pvemcp_server.access.limits.PLACE_SECONDS", 0.05)
    one, other, _ = (CallLimits(store.shared_limits) for store in stores)
    async with AsyncExitStack() as calls:
        for _ in range(3):
            await calls.enter_async_context(one.on_cluster("key", "lab", 8))
            await calls.enter_async_context(other.on_cluster("key", "lab", 8))
        with pytest.raises(OverBudget, match="on lab running already"):
            await calls.enter_async_context(one.on_cluster("key", "lab", 8))
        await calls.enter_async_context(one.on_cluster("key", "other", 8))


async def test_a_command_counts_for_itself(store: Store):
    limits = CallLimits(store.shared_limits)
    await limits.check_rate("key", 1)
    with pytest.raises(OverBudget):
        await limits.check_rate("key", 1)
