"""The database admits bounded reads only, and frees its memory."""

import gc
import sqlite3
import threading
import weakref
from datetime import UTC, datetime
from itertools import count

import pytest

from pvemcp_server.clusters import InventoryView
from pvemcp_server.errors import CallError, OverBudget
from pvemcp_server.query import cache as cache_module
from pvemcp_server.query import engine
from pvemcp_server.query.cache import DatabaseCache
from pvemcp_server.query.compiler import Statement
from pvemcp_server.query.engine import Database
from pvemcp_server.tables.rows import Field, Kind

FIELDS = (
    Field("cluster", Kind.TEXT, ""),
    Field("vmid", Kind.INTEGER, ""),
    Field("tags", Kind.LIST, ""),
)


def filled(*vmids, rows=None, owner=""):
    database = Database(owner)
    numbers = vmids or range(rows)
    database.fill("guests", FIELDS, [["lab"] * len(numbers), list(numbers), [["a"]] * len(numbers)])
    database.lock()
    return database


def run(database, sql, *values, seconds=1.0):
    return database.execute(Statement(sql, values), seconds)


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
def test_only_reads_of_its_own_tables_are_authorized(sql):
    with pytest.raises((sqlite3.Error, CallError)):
        run(filled(100), sql)


def test_the_functions_of_queries_are_authorized():
    sql = (
        'SELECT count(*), count(DISTINCT "vmid"), sum("vmid"), avg("vmid"), min("vmid"), '
        'max("vmid"), instr("tags~", ?), substr("cluster~", 1, 2) FROM "guests" ORDER BY rowid'
    )
    assert run(filled(100, 101), sql, "a") == [(2, 2, 201, 100.5, 100, 101, 2, "la")]
    numbered = (
        'SELECT row_number() OVER (PARTITION BY "cluster" ORDER BY "vmid" DESC) FROM "guests"'
    )
    assert run(filled(100, 101), numbered) == [(1,), (2,)]


def test_a_slow_query_is_interrupted():
    database = filled(rows=2000)
    sql = "SELECT count(*) FROM guests AS a, guests AS b, guests AS c, guests AS d"
    with pytest.raises(OverBudget, match="longer than 50 ms"):
        run(database, sql, seconds=0.05)
    assert run(database, "SELECT count(*) FROM guests") == [(2000,)]


def test_a_long_query_in_a_thread_releases_the_interpreter_lock():
    database = filled(rows=2000)
    done = threading.Event()

    def work():
        with pytest.raises(OverBudget):
            run(
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


def test_a_database_beyond_its_size_limit_is_refused(monkeypatch):
    monkeypatch.setattr(engine, "MAX_PAGES", 20)
    with pytest.raises(OverBudget, match="too much memory"):
        filled(rows=20_000)


def test_every_statement_that_fills_a_database_keeps_its_size_limit(monkeypatch):
    cells = [["lab"] * 900, list(range(900)), [["a"]] * 900]

    def has_room(pages):
        monkeypatch.setattr(engine, "MAX_PAGES", pages)
        try:
            Database().fill("guests", FIELDS, cells, [("vmid",)], {"tags"})
        except OverBudget:  # every other error is a bug
            return False
        return True

    assert next(filter(has_room, count(1))) > 10


def test_the_databases_of_one_key_leave_room_for_those_of_another(monkeypatch):
    monkeypatch.setattr(engine, "MAX_PAGES", 100)
    greedy = []
    with pytest.raises(OverBudget, match="too much memory"):
        greedy.extend(filled(rows=1_000, owner="greedy") for _ in count())
    assert 50 < sum(database.pages for database in greedy) <= 100
    assert run(filled(rows=1_000, owner="other"), "SELECT COUNT(*) FROM guests") == [(1_000,)]
    greedy.clear()
    assert filled(rows=1_000, owner="greedy").pages


def test_a_sum_beyond_64_bits_is_an_error():
    with pytest.raises(CallError, match="larger than 2\\^63"):
        run(filled(2**62, 2**62, 2**62), 'SELECT sum("vmid") FROM "guests"')


def test_counters_beyond_63_bits_are_stored_as_floats():
    database = filled(2**64 - 1, 5)
    assert run(database, 'SELECT "vmid" FROM "guests"') == [(2.0**64,), (5,)]


@pytest.mark.parametrize("number", [10**30, 10**400, -(10**30), -(2**64)])
def test_a_number_beyond_every_counter_is_unknown(number):
    database = filled(number, 5, None)
    assert run(database, 'SELECT "vmid" FROM "guests"') == [(None,), (5,), (None,)]


def test_a_database_without_rows_answers():
    assert run(filled(rows=0), "SELECT count(*) FROM guests") == [(0,)]


def test_one_database_answers_many_threads():
    database = filled(rows=500)
    answers = []

    def work():
        answers.extend(run(database, "SELECT count(*) FROM guests AS a, guests AS b") * 5)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [(250_000,)] * 40


@pytest.fixture
def no_collector():
    """Switch the cycle collector off, which doesn't count SQLite's memory."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_an_unreferenced_database_frees_its_memory():
    database = filled(100)
    assert run(database, "SELECT vmid FROM guests") == [(100,)]
    kept, connection = weakref.ref(database), database._connection
    del database
    assert kept() is None
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")


def inventory_view():
    return InventoryView(0.0, datetime.now(UTC), (), (), (), ())


SLOT = ("database", ("guests",), ("a", "b"))


@pytest.mark.usefixtures("no_collector")
def test_a_cached_database_is_freed_with_its_first_view():
    first, second = inventory_view(), inventory_view()
    database = filled(100)
    cache = DatabaseCache(SLOT, (first, second))
    cache.put({}, database)
    kept = weakref.ref(database)
    del database
    assert cache.get({}) is kept()
    del first, cache
    assert kept() is None


def test_the_databases_of_all_keys_leave_room_for_the_state(monkeypatch):
    assert engine.ALL_PAGES * engine.PAGE_BYTES <= engine.MAX_HEAP * 2 // 3
    before = sum(database._reserved for database in Database.open())
    monkeypatch.setattr(engine, "ALL_PAGES", before + 400)
    monkeypatch.setattr(engine, "MAX_PAGES", 200)
    filling = [Database(f"filling {number}") for number in range(3)]  # at the same time
    assert [database._reserved for database in filling] == [200, 100, 50]
    databases = []
    with pytest.raises(OverBudget, match="too much memory"):
        databases.extend(filled(rows=1_000, owner=str(number)) for number in count())
    filling.clear()
    with pytest.raises(OverBudget, match="too much memory"):
        databases.extend(filled(rows=1_000, owner=f"next {number}") for number in count())
    assert 200 < sum(database.pages for database in databases) <= 400


def test_a_renewed_inventory_view_misses_the_cache():
    first, second = inventory_view(), inventory_view()
    database = filled(100)
    DatabaseCache(SLOT, (first, second)).put({}, database)
    assert DatabaseCache(SLOT, (first, second)).get({}) is database
    assert DatabaseCache(SLOT, (first, inventory_view())).get({}) is None


def test_cached_databases_take_a_part_of_the_memory_and_those_of_one_key_half_of_it(monkeypatch):
    size = filled(100).pages
    for other in Database.open():  # of tests before, which no one has collected yet
        other.is_cached = False
    monkeypatch.setattr(cache_module, "CACHED_PAGES", size * 6)
    view = inventory_view()

    def is_cached(owner, number):
        slot = DatabaseCache(("database", ((owner, str(number)),)), (view,))
        slot.put({}, filled(100, owner=owner))
        return slot.get({}) is not None

    assert [is_cached("greedy", n) for n in range(5)] == [True] * 3 + [False] * 2
    assert is_cached("greedy", 0)  # in place of the one that was there
    assert [is_cached("other", n) for n in range(2)] == [True] * 2
    assert [is_cached("third", n) for n in range(2)] == [True, False]
    view.derived.clear()
    assert is_cached("third", 1)
