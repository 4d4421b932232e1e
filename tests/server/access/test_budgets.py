"""Budgets of destructive calls: one count for all processes, renewed at midnight UTC."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from tests.server.oauth.connected import connect

from pvemcp_server.access.budgets import KEPT, DestructiveBudgets
from pvemcp_server.errors import Conflict, OverBudget

pytestmark = pytest.mark.anyio

DAY = datetime(2027, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
async def key_id(access):
    return (await access.keys.create("laptop", destructive_per_day=5))[0].id


async def outcomes(*spending) -> list[type]:
    results = await asyncio.gather(*spending, return_exceptions=True)
    return [type(result) for result in results]


async def test_processes_share_one_count(store, other_store, key_id):
    budgets = [DestructiveBudgets(each, clock=lambda: DAY) for each in (store, other_store)]
    results = await outcomes(*(budgets[n % 2].spend(key_id, 100) for n in range(8)))
    assert (results.count(type(None)), results.count(OverBudget)) == (5, 3)
    today = await budgets[0].of(key_id, 100)
    assert (today.limit, today.used, today.left) == (5, 5, 0)
    assert today.renews == datetime(2027, 2, 1, tzinfo=UTC)


async def test_a_request_on_many_guests_is_counted_whole_or_not_at_all(store, other_store, key_id):
    budgets = [DestructiveBudgets(each, clock=lambda: DAY) for each in (store, other_store)]
    assert await outcomes(budgets[0].spend(key_id, 100, 6)) == [OverBudget]
    assert (await budgets[0].of(key_id, 100)).used == 0
    results = await outcomes(*(budgets[n % 2].spend(key_id, 100, 2) for n in range(4)))
    assert (results.count(type(None)), results.count(OverBudget)) == (2, 2)
    assert (await budgets[0].of(key_id, 100)).used == 4
    with pytest.raises(OverBudget, match="this needs 2"):
        await budgets[1].spend(key_id, 100, 2)


async def test_a_budget_renews_at_midnight(store, key_id):
    now = DAY
    budgets = DestructiveBudgets(store, clock=lambda: now)
    for _ in range(5):
        await budgets.spend(key_id, 100)
    with pytest.raises(OverBudget, match=r"5 were sent today.* renews at 2027-02-01T00:00:00Z\."):
        await budgets.spend(key_id, 100)
    now += timedelta(hours=12)
    assert (await budgets.of(key_id, 100)).used == 0
    await budgets.spend(key_id, 100)
    now -= timedelta(hours=1)  # another process, whose clock is behind
    assert (await budgets.of(key_id, 100)).used == 1


@pytest.mark.parametrize(("own", "default", "limit"), [(None, 2, 2), (0, 2, 0), (3, 2, 3)])
async def test_a_limit_of_its_own_replaces_the_setting(store, access, own, default, limit):
    key, _ = await access.keys.create("other", destructive_per_day=own)
    budgets = DestructiveBudgets(store)
    results = await outcomes(*(budgets.spend(key.id, default) for _ in range(4)))
    assert results.count(type(None)) == limit
    await access.keys.remove(key.id)
    with pytest.raises(Conflict):
        await budgets.spend(key.id, default)


async def test_connections_of_a_user_share_a_budget_that_outlives_them(store, other_store, access):
    budgets = [DestructiveBudgets(each, clock=lambda: DAY) for each in (store, other_store)]
    first = await connect(store, subject="cluster:1:alice@pve", name="one")
    other = await connect(store, subject="cluster:1:bob@pve", name="two")
    await budgets[0].spend(first.id, 3)
    second = await connect(store, subject=first.subject, client_id="second", name="three")
    await budgets[1].spend(second.id, 3)
    for ended in (first, second):
        await store.keys.remove(ended.id)
    again = await connect(store, subject=first.subject, name="four")
    await budgets[0].spend(again.id, 3)
    with pytest.raises(OverBudget, match="3 were sent today"):
        await budgets[1].spend(again.id, 3)
    await budgets[1].spend(other.id, 3)
    later = DestructiveBudgets(store, clock=lambda: DAY + KEPT + timedelta(days=1))
    await later.spend(other.id, 3)
    assert [use.holder for use in await store.destructive_uses.all()] == [other.subject]
