"""Plans that dry runs have shown: the next call of the same client is held to one, once."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import anyio
import pytest
from sqlalchemy import update

from pvemcp_server.access.model import Caller, Role
from pvemcp_server.approvals import PlannedCall
from pvemcp_server.errors import Precondition
from pvemcp_server.pipeline.shown_plans import PLAN_CHARACTERS, ShownPlans
from pvemcp_server.store import Store, records
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.shown_plan_repository import KEPT, KEPT_OF_KEY

pytestmark = pytest.mark.anyio

ROLE = Role(1, "r", "", ())
CALL = PlannedCall(
    Caller("k", "key", ROLE),
    *("client", "DeleteThing", "lab", {"vmid": 101}),
    ("Delete thing 101.",),
    {"vmid": 101},
    ("Delete thing 101.",),
    digest="one",
    requested={"vmid": 101, "cluster_name": None},
)
OTHER_PLAN: dict[str, Any] = {"plan": ("It has a copy.",), "shown_plan": ("It has a copy.",)}


def plans_of(store: Store) -> ShownPlans:
    return ShownPlans(store.shown_plans, lambda: store.vault.derive("shown plans"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (OTHER_PLAN, "The plan has changed since the dry run of "),
        ({"cluster": "prod"}, "The plan has changed since the dry run of "),
        ({"digest": "two"}, "The configuration has changed since the dry run of "),
    ],
)
async def test_a_changed_plan_is_refused_once_in_every_process(
    store: Store, other_store: Store, change: dict[str, Any], says: str
):
    here, there = plans_of(store), plans_of(other_store)
    await here.keep(CALL)
    changed = replace(CALL, **change)
    with pytest.raises(Precondition) as refused:
        await there.require_same(changed)
    assert str(refused.value).startswith(says)
    shown = f"; nothing was sent. It would now: {changed.plan[0]} Repeat the identical call to"
    assert shown in str(refused.value)
    with pytest.raises(Precondition):  # the error has shown the changed plan, and no other
        await here.require_same(CALL)
    await there.require_same(CALL)


async def test_a_plan_that_is_too_long_for_the_error_is_shown_by_a_dry_run(store: Store):
    plans = plans_of(store)
    await plans.keep(CALL)
    long = ("Do this. " * PLAN_CHARACTERS,)
    with pytest.raises(Precondition, match=r" dry_run shows it whole\. Repeat"):
        await plans.require_same(replace(CALL, plan=long, shown_plan=long))


async def test_a_plan_that_was_shown_counts_for_one_call(store: Store):
    plans = plans_of(store)
    await plans.keep(CALL)
    await plans.require_same(CALL)
    await plans.require_same(replace(CALL, **OTHER_PLAN))


@pytest.mark.parametrize(
    "change",
    [
        {"caller": Caller("other", "key", ROLE)},
        {"caller": Caller("k", "key", ROLE, acting="ada")},
        {"tool": "CreateThing"},
        {"requested": {"vmid": 102, "cluster_name": None}},
    ],
)
async def test_a_dry_run_binds_no_other_call(store: Store, change: dict[str, Any]):
    plans = plans_of(store)
    await plans.keep(CALL)
    await plans.require_same(replace(CALL, **OTHER_PLAN, **change))


async def test_concurrent_dry_runs_of_a_call_keep_one_plan(store: Store, other_store: Store):
    async with anyio.create_task_group() as tasks:
        for plans in (plans_of(store), plans_of(other_store)):
            tasks.start_soon(plans.keep, CALL)
    assert len(await store.shown_plans.all()) == 1


async def test_old_plans_and_those_beyond_the_newest_bind_no_call(store: Store):
    plans = plans_of(store)
    await plans.keep(CALL)
    before = utc_now() - KEPT - timedelta(seconds=1)
    async with store.database.writing() as connection:
        await connection.execute(update(records.shown_plans).values(shown=before))
    await plans.require_same(replace(CALL, **OTHER_PLAN))
    another = replace(CALL, caller=Caller("another", "key", ROLE))
    await plans.keep(another)
    for number in range(KEPT_OF_KEY + 2):
        await plans.keep(replace(CALL, requested={"vmid": number}))
    kept = [row.key_id for row in await store.shown_plans.all()]
    assert (kept.count("k"), kept.count("another")) == (KEPT_OF_KEY, 1)


async def test_only_keyed_digests_of_a_call_are_stored(store: Store):
    await plans_of(store).keep(CALL)
    [row] = await store.shown_plans.all()
    await ShownPlans(store.shown_plans, lambda: b"another key").keep(CALL)
    [other] = [each for each in await store.shown_plans.all() if each != row]
    for name in ("call_digest", "plan_digest", "config_digest"):
        assert getattr(row, name) != getattr(other, name)
