"""Slow queries of one key leave the event loop and the threads to others."""

import asyncio
import threading

import pytest

from pvemcp_server.access.key_threads import has_key_thread, in_key_thread
from pvemcp_server.errors import OverBudget
from pvemcp_server.query import execute
from pvemcp_server.query.compiler import Statement
from pvemcp_server.query.engine import Database
from pvemcp_server.tables.rows import Field, Kind

pytestmark = pytest.mark.anyio

TEXTS = (Field("cluster", Kind.TEXT, ""), Field("description", Kind.TEXT, ""))
ANSWER = [("an answer",)]


def database_of(text, rows=60):
    database = Database()
    database.fill("guests", TEXTS, [["lab"] * rows, [text] * rows])
    database.lock()
    return database


def search_for(text, conditions=60):
    tests = " OR ".join(['instr("description~", ?) > 0'] * conditions)
    return Statement(f'SELECT count(*) FROM "guests" WHERE {tests}', (text,) * conditions)  # noqa: S608


@pytest.mark.parametrize("length", [10, 200, 1_000, 8_192, 100_000])
def test_a_search_in_long_texts_looks_at_the_clock(length):
    database = database_of("a" * length, rows=2_000_000 // (length + 60))
    with pytest.raises(OverBudget, match="took longer"):
        database.execute(search_for("a" * (length // 2) + "b", conditions=40), seconds=0.0)


def test_a_database_in_use_is_not_waited_for_without_need():
    database = database_of("short")
    started, released = threading.Event(), threading.Event()

    class Statements:
        values = ()

        @property
        def sql(self):
            started.set()
            released.wait()
            return "SELECT 1"

    other = threading.Thread(target=database.execute, args=(Statements(),))
    other.start()
    started.wait()
    with pytest.raises(OverBudget):
        database.execute(search_for("a"), wait=False)
    released.set()
    other.join()
    assert database.execute(search_for("a"), wait=False) == [(0,)]


class RecordingDatabase:
    """Answers at once, and records whether a statement ran on the event loop."""

    def __init__(self, rows=1, longest_text=1, *, busy=False):
        self.rows, self.longest_text, self.busy = rows, longest_text, busy
        self.threads = []

    def execute(self, _statement, _seconds, *, wait=True):
        if self.busy and not wait:
            raise OverBudget("in use")
        self.threads.append(threading.current_thread())
        return ANSWER


@pytest.mark.parametrize(
    ("database", "on_loop"),
    [
        (RecordingDatabase(), True),
        (RecordingDatabase(busy=True), False),
        (RecordingDatabase(rows=100_000), False),
        (RecordingDatabase(longest_text=8_192), False),
    ],
)
async def test_only_quick_queries_run_on_the_event_loop(database, on_loop):
    assert await execute._run(database, search_for("a"), "a key") == ANSWER
    assert [thread is threading.main_thread() for thread in database.threads] == [on_loop]


async def test_work_of_one_key_runs_one_piece_at_a_time():
    started, released = threading.Event(), threading.Event()

    def slow():
        started.set()
        released.wait()
        return "slow"

    first = asyncio.create_task(in_key_thread("mallory", slow))
    await asyncio.to_thread(started.wait)
    second = asyncio.create_task(in_key_thread("mallory", lambda: "second"))
    quick = RecordingDatabase()
    third = asyncio.create_task(execute._run(quick, search_for("a"), "mallory"))
    assert await in_key_thread("alice", lambda: "alice") == "alice"
    assert has_key_thread("mallory")
    assert not has_key_thread("alice")
    assert not second.done()
    assert not third.done()
    assert not quick.threads  # its statements are not tried on the event loop either
    released.set()
    assert await asyncio.gather(first, second, third) == ["slow", "second", ANSWER]


async def test_a_cancelled_call_keeps_its_turn_until_its_thread_has_ended():
    started, released = threading.Event(), threading.Event()

    def slow():
        started.set()
        released.wait()
        raise OverBudget("too slow")

    first = asyncio.create_task(in_key_thread("mallory", slow))
    await asyncio.to_thread(started.wait)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert has_key_thread("mallory")
    second = asyncio.create_task(in_key_thread("mallory", lambda: "second"))
    released.set()
    assert await second == "second"
    assert not has_key_thread("mallory")
