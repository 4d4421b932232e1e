"""Several processes on one PostgreSQL database: messages, signs of life, and notes of writes."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest
from tests.server.store.part import taking_part

from pvemcp_server.config import Config
from pvemcp_server.errors import StateUnavailable
from pvemcp_server.store import Store, Topic, fleet, watch

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]


@pytest.fixture
def config(tmp_path: Path, new_postgres_database: Callable[[], str]) -> Config:
    return Config(state_dir=tmp_path / "var", database_url=new_postgres_database())


class Heard:
    """Waits for the changes of topics that a process hears of."""

    def __init__(self, store: Store, *topics: Topic) -> None:
        self.topics: list[Topic] = []
        self._heard: asyncio.Queue[Topic] = asyncio.Queue()
        for topic in topics:
            store.watch.on_change(topic, self._listener(topic))

    def _listener(self, topic: Topic) -> Callable[[], Awaitable[None]]:
        async def listener() -> None:
            self.topics.append(topic)
            self._heard.put_nowait(topic)

        return listener

    async def next(self) -> Topic:
        with anyio.fail_after(5):
            return await self._heard.get()


@pytest.fixture
def no_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an idle process poll never, so that only notifications bring a change."""
    monkeypatch.setattr(watch, "LISTEN_SECONDS", 3600.0)


async def test_a_change_is_notified_without_a_poll(store: Store, other_store: Store, no_polls):
    async with taking_part(store, other_store):
        heard = Heard(other_store, *Topic)
        await store.settings.put({"row_cap": 5}, "ada")
        assert await heard.next() is Topic.SETTINGS
        await store.roles.add(name="web", description="", grants=[], built_in=False)
        assert await heard.next() is Topic.ACCESS
    assert heard.topics == [Topic.SETTINGS, Topic.ACCESS]


async def test_a_change_that_is_rolled_back_is_not_notified(
    store: Store, other_store: Store, no_polls
):
    async with taking_part(store, other_store):
        heard = Heard(other_store, *Topic)
        async with store.database.writing() as connection:
            await watch.bump(connection, Topic.ACCESS)
            await connection.rollback()
        await store.settings.put({"row_cap": 5}, "ada")
        assert await heard.next() is Topic.SETTINGS
    assert heard.topics == [Topic.SETTINGS]


async def test_a_lost_connection_is_opened_again_and_nothing_is_missed(
    store: Store, other_store: Store, no_polls
):
    async with taking_part(store, other_store):
        heard = Heard(other_store, Topic.SETTINGS)
        lost = other_store.fleet._session
        lost.terminate()
        await store.settings.put({"row_cap": 5}, "ada")
        assert await heard.next() is Topic.SETTINGS
        await other_store.fleet.joined()
        assert other_store.fleet._session is not lost
        await store.settings.put({"row_cap": 6}, "ada")
        assert await heard.next() is Topic.SETTINGS


async def test_processes_share_the_clock_of_the_database(store, other_store, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 0.0)
    async with taking_part(store, other_store):
        (row,) = await store.fleet.fetch("SELECT extract(epoch FROM now())::float8 AS now")
        for each in (store, other_store):
            assert abs(each.fleet.clock() - row["now"]) < 20


async def test_a_statement_fails_as_an_absent_database_while_not_connected(store, monkeypatch):
    monkeypatch.setattr("pvemcp_server.store.fleet.WAIT_SECONDS", 0.01)
    with pytest.raises(StateUnavailable, match="does not answer"):
        await store.fleet.fetch("SELECT 1")


async def test_processes_know_of_each_other_until_one_ends(store: Store, other_store: Store):
    async with taking_part(other_store):
        async with taking_part(store):
            assert store.fleet.others == (other_store.fleet.id,)
        rows = await other_store.fleet.fetch("SELECT id FROM processes")
        assert [row["id"] for row in rows] == [other_store.fleet.id]


@pytest.mark.parametrize("seen", [1.0, 1e12], ids=["long ago", "before the clock was set back"])
async def test_what_a_process_left_behind_is_removed(store: Store, seen: float):
    async with taking_part(store):
        await store.fleet.fetch(
            "WITH a AS (INSERT INTO processes VALUES ('gone', $1)), "
            "b AS (INSERT INTO rate_buckets VALUES ('key', 5, $1, 5, 1, 1)) "
            """INSERT INTO claims VALUES ('key', '{"gone": 3}', 8, 3, $1)""",
            seen,
        )
        await store.fleet.fetch(fleet._SWEEP)
        assert not await store.fleet.fetch("SELECT name FROM rate_buckets")
        assert not await store.fleet.fetch("SELECT name FROM claims")
        assert len(await store.fleet.fetch("SELECT * FROM processes")) == 1
