"""The database can be read and nothing else, for so long and no longer."""

import gc
import sqlite3
import threading
import weakref
from datetime import UTC, datetime

import pytest

from pvemcp_server.clusters import InventoryView
from pvemcp_server.errors import CallError, OverBudget
from pvemcp_server.query import engine
from pvemcp_server.query.cache import DatabaseCache
from pvemcp_server.query.compiler import Statement
from pvemcp_server.query.engine import Database
from pvemcp_server.tables.registry import Field, Kind

FIELDS = (
    Field("cluster", Kind.TEXT, ""),
    Field("vmid", Kind.INTEGER, ""),
    Field("tags", Kind.LIST, ""),
)


def filled(*vmids, rows=None):
    database = Database()
    numbers = vmids or range(rows)
    database.fill("guests", FIELDS, [["lab"] * len(numbers), list(numbers), [["a"]] * len(numbers)])
    database.lock()
    return database


def ask(database, sql, *values, seconds=1.0):
    return database.ask(Statement(sql, values, 1), seconds)


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO guests VALUES ('x', 'x', 1, '[]', '')",
        "UPDATE guests SET vmid = 1",
        "DELETE FROM guests",
        "DROP TABLE guests",
        "CREATE TABLE other (a)",
        "CREATE TEMP TABLE other (a)",
        "CREATE VIEW other AS SELECT 1",
        "ATTACH DATABASE ':memory:' AS other",
        "PRAGMA query_only = 0",
        "PRAGMA table_info(guests)",
        "VACUUM INTO '/tmp/copy'",
        "BEGIN",
        "SAVEPOINT one",
        "ANALYZE",
        "SELECT * FROM sqlite_master",
        "SELECT * FROM pragma_table_info('guests')",
        "SELECT sqlite_version()",
        "SELECT load_extension('evil')",
        "SELECT randomblob(100000000)",
        "SELECT zeroblob(100000000)",
        "SELECT printf('%.*c', 100000000, 'x')",
        "SELECT group_concat(cluster) FROM guests",
        "SELECT upper(cluster) FROM guests",
        "SELECT cluster LIKE '%a%' FROM guests",
        "SELECT cluster GLOB '*' FROM guests",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
        "SELECT value FROM json_each('[1]')",
        "SELECT 1; SELECT 2",
    ],
)
def test_only_plain_reads_of_its_own_tables_are_prepared(sql):
    with pytest.raises((sqlite3.Error, CallError)):
        ask(filled(100), sql)


def test_what_queries_need_is_allowed():
    sql = (
        'SELECT count(*), count(DISTINCT "vmid"), sum("vmid"), avg("vmid"), min("vmid"), '
        'max("vmid"), instr("tags~", ?), substr("cluster~", 1, 2) FROM "guests" ORDER BY rowid'
    )
    assert ask(filled(100, 101), sql, "a") == [(2, 2, 201, 100.5, 100, 101, 2, "la")]


def test_a_query_that_takes_too_long_is_ended():
    database = filled(rows=2000)
    sql = "SELECT count(*) FROM guests AS a, guests AS b, guests AS c, guests AS d"
    with pytest.raises(OverBudget, match="longer than 50 ms"):
        ask(database, sql, seconds=0.05)
    assert ask(database, "SELECT count(*) FROM guests") == [(2000,)]


def test_a_long_query_in_a_thread_lets_other_threads_work():
    """SQLite's own work is done without the interpreter's lock."""
    database = filled(rows=2000)
    done = threading.Event()

    def work():
        with pytest.raises(OverBudget):
            ask(
                database,
                "SELECT count(*) FROM guests AS a, guests AS b, guests AS c",
                seconds=0.1,
            )
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    turns = 0
    while not done.is_set():
        turns += 1
    thread.join()
    assert turns > 1000


def test_more_rows_than_a_database_may_hold_are_refused(monkeypatch):
    monkeypatch.setattr(engine, "PAGES", 20)
    with pytest.raises(OverBudget, match="too much memory"):
        filled(rows=20_000)


def test_a_sum_beyond_64_bits_is_said():
    with pytest.raises(CallError, match="larger than 2\\^63"):
        ask(filled(2**62, 2**62, 2**62), 'SELECT sum("vmid") FROM "guests"')


def test_counters_beyond_63_bits_are_kept_as_near_as_can_be():
    database = filled(2**64 - 1, 5)
    assert ask(database, 'SELECT "vmid" FROM "guests"') == [(2.0**64,), (5,)]


def test_a_database_without_rows_can_be_asked():
    assert ask(filled(rows=0), "SELECT count(*) FROM guests") == [(0,)]


def test_one_database_answers_many_threads():
    database = filled(rows=500)
    answers = []

    def work():
        answers.extend(ask(database, "SELECT count(*) FROM guests AS a, guests AS b") * 5)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert answers == [(250_000,)] * 40


@pytest.fixture
def no_collector():
    """The collector of cycles doesn't see SQLite's memory, so nothing may wait for it."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_a_database_gives_its_memory_back_when_nobody_has_it_any_more():
    database = filled(100)
    assert ask(database, "SELECT vmid FROM guests") == [(100,)]
    kept, connection = weakref.ref(database), database._connection
    del database
    assert kept() is None
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")


def snapshot():
    return InventoryView(0.0, datetime.now(UTC), (), (), (), ())


@pytest.mark.usefixtures("no_collector")
def test_a_database_goes_with_the_first_snapshot_that_it_was_made_of():
    first, second = snapshot(), snapshot()
    database = filled(100)
    shelf = DatabaseCache(("database", ("guests",), ("a", "b")), (first, second))
    shelf.keep({}, database)
    kept = weakref.ref(database)
    del database
    assert shelf.database({}) is kept()
    del first, shelf
    assert kept() is None


def test_a_database_is_not_found_for_a_snapshot_that_was_renewed():
    first, second = snapshot(), snapshot()
    slot = ("database", ("guests",), ("a", "b"))
    database = filled(100)
    DatabaseCache(slot, (first, second)).keep({}, database)
    assert DatabaseCache(slot, (first, second)).database({}) is database
    assert DatabaseCache(slot, (first, snapshot())).database({}) is None
