"""Answered questions: each nonce is used once, by any process."""

from datetime import timedelta

import anyio
import pytest

from pvemcp_server.store import Store
from pvemcp_server.store.columns import utc_now

pytestmark = pytest.mark.anyio

LIFE = timedelta(minutes=20)


async def test_of_concurrent_uses_by_two_processes_one_succeeds(store: Store, other_store: Store):
    now, uses = utc_now(), []

    async def use(repository) -> None:
        uses.append(await repository.use("nonce", now=now, expires=now + LIFE))

    async with anyio.create_task_group() as group:
        for each in (store, other_store) * 3:
            group.start_soon(use, each.answered_questions)
    assert sorted(uses) == [False] * 5 + [True]


async def test_expired_nonces_are_deleted(store: Store):
    then = utc_now()
    await store.answered_questions.use("old", now=then, expires=then + LIFE)
    later = then + LIFE + timedelta(seconds=1)
    await store.answered_questions.use("new", now=later, expires=later + LIFE)
    assert [row.nonce for row in await store.answered_questions.all()] == ["new"]
