"""Locks after failed sign-ins, for several processes on one PostgreSQL database together."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import pytest
from tests.server.store.part import taking_part

from pvemcp_server.access.admins import Admins
from pvemcp_server.access.sign_in_limits import (
    FIRST_LOCK,
    FREE_FAILURES,
    LONGEST_LOCK,
    FailureLocks,
)
from pvemcp_server.config import Config
from pvemcp_server.errors import AccessDenied, TooManyFailures
from pvemcp_server.store import Store, fleet
from pvemcp_server.store.columns import utc_now

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]
HERE = "192.0.2.7"


@pytest.fixture
def config(tmp_path: Path, new_postgres_database: Callable[[], str]) -> Config:
    return Config(state_dir=tmp_path / "var", database_url=new_postgres_database())


@pytest.fixture
async def stores(store: Store, other_store: Store) -> AsyncIterator[list[Store]]:
    async with taking_part(store, other_store):
        yield [store, other_store]


@pytest.fixture
def locks(stores: list[Store]) -> list[FailureLocks]:
    return [FailureLocks(utc_now, "test", store.shared_failures) for store in stores]


async def seconds_of(locks: FailureLocks) -> float:
    """Return how long the lock lasts."""
    with pytest.raises(TooManyFailures) as locked:
        await locks.begin("ada", HERE)
    return locked.value.seconds


async def test_wrong_passwords_at_several_processes_lock_at_all(stores):
    processes = [Admins(store) for store in stores]
    await processes[0].create("ada", "correct horse battery")
    for number in range(FREE_FAILURES):
        with pytest.raises(AccessDenied, match="wrong password"):
            await processes[number % 2].sign_in("ada", "something wrong", address=HERE)
    for process in processes:
        with pytest.raises(TooManyFailures, match="locked"):
            await process.sign_in("ada", "correct horse battery", address=HERE)
        signed_in = await process.sign_in("ada", "correct horse battery", address="192.0.2.8")
        assert signed_in.name == "ada", "another address is not locked"


async def test_concurrent_attempts_are_counted_one_by_one(locks):
    refused = []

    async def attempt(each):
        try:
            await each.begin("ada", HERE)
        except TooManyFailures:
            refused.append(each)

    async with anyio.create_task_group() as tasks:
        for each in locks * FREE_FAILURES:
            tasks.start_soon(attempt, each)
    assert len(refused) == FREE_FAILURES


async def test_each_further_failure_locks_for_twice_as_long(stores, locks):
    one, other = locks
    for _ in range(FREE_FAILURES - 1):
        await one.begin("ada", HERE)
    longest = FIRST_LOCK.total_seconds()
    for number in range(8):
        assert not await other.is_locked("ada", HERE)
        await (one, other)[number % 2].begin("ada", HERE)
        assert longest / 2 < await seconds_of(other) <= longest
        longest = min(2 * longest, LONGEST_LOCK.total_seconds())
        await stores[0].fleet.fetch("UPDATE failures SET locked_until = locked_until - 900")
    assert longest == LONGEST_LOCK.total_seconds()


async def test_an_attempt_that_is_taken_back_ends_the_lock_and_a_success_all(stores, locks):
    one, other = locks
    for _ in range(FREE_FAILURES):
        await one.begin("ada", HERE)
    await other.undo("ada", HERE)
    assert not await one.is_locked("ada", HERE)
    await one.begin("ada", HERE)
    assert await other.is_locked("ada", HERE)
    await other.clear("ada", HERE)
    await one.begin("ada", HERE)
    assert not await one.is_locked("ada", HERE)
    await one.undo("ada", HERE)
    assert not await stores[0].fleet.fetch("SELECT name FROM failures")


async def test_a_clock_that_was_set_back_makes_no_shared_lock_longer(stores, locks):
    for _ in range(FREE_FAILURES):
        await locks[0].begin("ada", HERE)
    await stores[0].fleet.fetch("UPDATE failures SET locked_until = locked_until + 86400")
    assert not await locks[1].is_locked("ada", HERE)
    await locks[1].begin("ada", HERE)


async def test_old_failures_are_removed_and_name_nothing(stores, locks):
    await locks[0].begin("ada", HERE)
    [row] = await stores[0].fleet.fetch("SELECT name FROM failures")
    assert len(row["name"]) == 64, "a digest"
    await stores[0].fleet.fetch("UPDATE failures SET changed = changed - 86400")
    await stores[0].fleet.fetch(fleet._SWEEP)
    assert not await stores[0].fleet.fetch("SELECT name FROM failures")
