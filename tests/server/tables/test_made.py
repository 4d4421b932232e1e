"""Rows of tables: those of many items are made beside other calls, whatever the table."""

import threading
from pathlib import Path

import pytest

import pvemcp_server.tables
from pvemcp_server.clusters.cluster import MANY
from pvemcp_server.tables.registry import made

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("items", "size", "on_loop"),
    [(MANY, None, True), (MANY + 1, None, False), (1, MANY + 1, False), (MANY + 1, 1, True)],
)
async def test_the_rows_of_many_items_are_made_in_a_thread(open_cluster, items, size, on_loop):
    threads = set()

    def make(item):
        threads.add(threading.current_thread())
        return [item]

    rows = await made(open_cluster(), iter(range(items)), make, size)
    assert rows == list(range(items))
    assert (threading.main_thread() in threads) == on_loop


def test_every_table_makes_its_rows_there():
    folder = Path(pvemcp_server.tables.__file__).parent
    texts = {path.name: path.read_text("utf-8") for path in folder.glob("*.py")}
    calls = {name: text.count(" made(") - text.count("def made(") for name, text in texts.items()}
    assert sum(calls.values()) > 30
    assert calls == {name: text.count("await made(") for name, text in texts.items()}
