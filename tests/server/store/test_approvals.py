"""Approvals in the store: a decision is used once, by any process, and ends with its rights."""

from datetime import timedelta

import anyio
import pytest
from tests.server.oauth.connected import connect

from pvemcp_server.access import Access
from pvemcp_server.access.model import ANY, Grant
from pvemcp_server.store import Store
from pvemcp_server.store.approval_repository import KEPT, MOST_WAITING
from pvemcp_server.store.columns import HIGHEST_ID, utc_now
from pvemcp_server.store.records import ApprovalState

pytestmark = pytest.mark.anyio

LIFE = timedelta(hours=1)


@pytest.fixture
async def key_id(access: Access) -> str:
    key, _ = await access.keys.create("agent", role="Operator")
    return key.id


async def ask(store: Store, key_id: str, call="call", plan="plan", now=None, holder=""):
    now = now or utc_now()
    texts = {"client": "c 1", "tool": "DeleteBackup", "cluster": "prod"}
    return await store.approvals.ask(
        holder or key_id,
        now=now,
        expires=now + LIFE,
        key_id=key_id,
        arguments={},
        plan=[plan],
        call_digest=call,
        plan_digest=plan,
        **texts,
    )


async def decide(store: Store, number: int, state=ApprovalState.APPROVED):
    now = utc_now()
    return await store.approvals.decide(number, state, by="ada", now=now, expires=now + LIFE)


async def use(store: Store, key_id: str, plan="plan", now=None):
    return await store.approvals.answer(
        ApprovalState.APPROVED,
        now=now or utc_now(),
        key_id=key_id,
        call_digest="call",
        plan_digest=plan,
    )


async def test_every_database_compares_the_highest_number_of_a_row(store: Store):
    assert await decide(store, HIGHEST_ID) is None


async def test_of_concurrent_uses_by_two_processes_one_succeeds(
    store: Store, other_store: Store, key_id: str
):
    approval, _ = await ask(store, key_id)
    await decide(store, approval.id)
    uses = []

    async def attempt(process: Store) -> None:
        uses.append(await use(process, key_id))

    async with anyio.create_task_group() as group:
        for process in (store, other_store) * 3:
            group.start_soon(attempt, process)
    assert [each.id for each in uses if each] == [approval.id]


async def test_concurrent_requests_by_two_processes_get_one_number(
    store: Store, other_store: Store, key_id: str
):
    answers = []

    async def attempt(process: Store) -> None:
        answers.append(await ask(process, key_id))

    async with anyio.create_task_group() as group:
        for process in (store, other_store) * 3:
            group.start_soon(attempt, process)
    assert len({approval.id for approval, _ in answers}) == 1
    assert [is_new for _, is_new in answers].count(True) == 1


async def test_one_of_two_administrators_decides(store: Store, other_store: Store, key_id: str):
    approval, _ = await ask(store, key_id)
    assert await decide(store, approval.id, ApprovalState.DECLINED)
    assert await decide(other_store, approval.id) is None
    assert await use(store, key_id) is None


async def test_an_approval_ends_with_its_lifetime(store: Store, key_id: str):
    approval, _ = await ask(store, key_id)
    await decide(store, approval.id)
    assert await use(store, key_id, now=utc_now() + LIFE) is None
    expired, _ = await ask(store, key_id, "other", now=utc_now() - LIFE)
    assert await decide(store, expired.id) is None
    assert [each.id for each in await store.approvals.ended(utc_now(), 9)] == [
        expired.id,
        approval.id,
    ]


async def test_an_approval_lives_no_longer_once_the_clock_is_set_back(store: Store, key_id: str):
    earlier = utc_now() - timedelta(minutes=2)
    waiting, _ = await ask(store, key_id, call="waiting")
    approval, _ = await ask(store, key_id)
    await decide(store, approval.id)
    assert await use(store, key_id, now=earlier) is None
    assert await store.approvals.waiting(earlier) == []
    assert len(await store.approvals.ended(earlier, 9)) == 2
    decision = {"by": "ada", "now": earlier, "expires": earlier + LIFE}
    assert not await store.approvals.decide(waiting.id, ApprovalState.APPROVED, **decision)
    soon = utc_now() - timedelta(seconds=30)  # the clocks of two machines differ a little
    assert await use(store, key_id, now=soon)


async def test_a_changed_plan_ends_its_approval(store: Store, key_id: str):
    old, _ = await ask(store, key_id)
    await decide(store, old.id)
    new, is_new = await ask(store, key_id, plan="another plan")
    assert (new.id != old.id, is_new) == (True, True)
    assert await use(store, key_id) is None
    assert (await store.approvals.find(id=old.id)).state is ApprovalState.VOID


async def test_plans_that_change_with_each_call_do_not_fill_the_table(store: Store, key_id: str):
    for number in range(3 * MOST_WAITING):
        await ask(store, key_id, plan=f"plan {number}")
    assert len(await store.approvals.all()) == 1


async def test_the_number_of_waiting_calls_of_a_key_is_bounded(
    store: Store, access: Access, key_id: str
):
    for number in range(MOST_WAITING):
        assert await ask(store, key_id, f"call {number}")
    assert await ask(store, key_id, "one more") is None
    assert await ask(store, key_id, "call 1")
    other, _ = await access.keys.create("other")
    assert await ask(store, other.id)


async def test_the_waiting_calls_of_all_connections_of_a_user_are_bounded_together(
    store: Store, other_store: Store
):
    subject = "cluster:1:alice@pve"
    first, second = [await connect(store, subject=subject, name=name) for name in ("one", "two")]
    asked = []

    async def ask_by(each: Store, key: str, call: str) -> None:
        asked.append(await ask(each, key, call, holder=subject))

    async with anyio.create_task_group() as tasks:
        for number in range(MOST_WAITING):
            tasks.start_soon(ask_by, store, first.id, f"call {number}")
            tasks.start_soon(ask_by, other_store, second.id, f"call {number}")
    assert len([each for each in asked if each]) == MOST_WAITING
    other = await connect(store, subject="cluster:1:bob@pve", name="three")
    assert await ask(store, other.id, holder=other.subject)


async def test_old_approvals_are_removed(store: Store, key_id: str):
    await ask(store, key_id, "old", now=utc_now() - LIFE - KEPT)
    new, _ = await ask(store, key_id)
    assert [each.id for each in await store.approvals.all()] == [new.id]


CHANGES = {
    "disabled": lambda access, key: access.keys.change(key, enabled=False),
    "narrowed": lambda access, key: access.keys.change(key, clusters=["lab"]),
    "moved to another role": lambda access, key: access.keys.change(key, role="Read-only"),
    "regenerated": lambda access, key: access.keys.regenerate(key),
    "role narrowed": lambda access, _: access.roles.change("Mine", grants=[]),
}


@pytest.mark.parametrize("approved", [False, True])
async def test_a_change_of_key_or_role_makes_approvals_void(
    store: Store, access: Access, key_id: str, approved: bool
):
    await access.roles.create("Mine", [Grant(frozenset({ANY}))])
    other, _ = await ask(store, key_id)
    for name, change in CHANGES.items():
        key, _ = await access.keys.create(name, role="Mine")
        approval, _ = await ask(store, key.id)
        if approved:
            await decide(store, approval.id)
        await change(access, key.id)
        assert await decide(store, approval.id) is None, name
        assert await use(store, key.id) is None, name
    assert [each.id for each in await store.approvals.waiting(utc_now())] == [other.id]


async def test_a_removed_key_leaves_no_approval(store: Store, access: Access, key_id: str):
    await ask(store, key_id)
    await access.keys.remove(key_id)
    assert await store.approvals.all() == []


async def test_a_changed_cluster_makes_its_approvals_void(
    store: Store, access: Access, key_id: str
):
    await access.clusters.create("prod", ["pve1"], token_id="a@pve!one", secret="s")
    approval, _ = await ask(store, key_id)
    await decide(store, approval.id)
    await access.clusters.change("prod", hosts=["pve2"], secrets={"default": "s"})
    assert await use(store, key_id) is None


async def test_url_and_secret_of_a_webhook_are_encrypted_and_survive_a_rotation(
    store: Store, other_store: Store
):
    await store.webhooks.replace("https://old.example:443", "https://old.example/", "old")
    url = "https://hooks.example/a-secret-path"
    webhook = await store.webhooks.replace("https://hooks.example:443", url, "signs messages")
    assert await store.vault.rotate() == 1
    assert await other_store.webhooks.opened(webhook) == (url, "signs messages")
    assert await store.webhooks.all() == [webhook]
    async with store.database.reading() as connection:
        [row] = await connection.execute(store.webhooks.table.select())
    assert not [word for word in (b"secret-path", b"signs") if word in row.sealed]
