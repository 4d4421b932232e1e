"""Pages, columns and formats of every list tool."""

import math
import threading

import pytest

from pvemcp_formats import Format, decode
from pvemcp_server.pipeline import pipeline
from pvemcp_server.pipeline.answers import Writer
from pvemcp_server.toolkit.registry import tools

from .examples import PROD, api_read, examples
from .few_guests import few_guests

pytestmark = pytest.mark.anyio

SCENARIO = few_guests
KEEPS_ANSWERS = True

UNPAGED = {"ListTasks"}  # its own `limit` replaces paging
LISTS = {
    name: arguments
    for name, arguments in examples(PROD).items()
    if tools()[name].lists and name not in UNPAGED
} | {
    "ListStorageContent": {"cluster_name": "prod", "node": "pve01", "storage": "nfs-iso"},
    "GetLog": {"cluster_name": "prod", "node": "pve01", "since": "-2h", "service": "chrony"},
    "CallApi": api_read(PROD),
}
EVERY = pytest.mark.parametrize("tool", LISTS)


@EVERY
async def test_pages_follow_each_other_and_hold_every_row_once(tool_client, tool):
    whole = (await tool_client(tool, **LISTS[tool])).data
    assert len(whole) > 1, f"{tool} has too little to page"
    picked = {**LISTS[tool], "fields": list(whole[0])}  # a page alone would drop empty columns
    limit, seen, cursor = math.ceil(len(whole) / 3), [], None
    while cursor is not None or not seen:
        more = {} if cursor is None else {"cursor": cursor}
        page = await tool_client(tool, **picked, limit=limit, **more)
        assert not page.failed, page.text
        assert len(page.data) <= limit
        seen += page.data
        cursor = page.notes.partition("cursor=")[2].split("\n")[0] or None
    assert seen == whole


@EVERY
async def test_every_format_carries_the_columns_that_were_picked(tool_client, tool):
    first, *_, last = (await tool_client(tool, **LISTS[tool], limit=2)).data[0]
    picked = {**LISTS[tool], "fields": [last, first], "limit": 2}
    for notation in Format:
        answer = await tool_client(tool, **picked, format=notation)
        assert not answer.failed, answer.text
        rows = decode(answer.text, notation)
        assert [list(row) for row in rows] == [[last, first]] * len(rows), notation
        assert rows


@EVERY
async def test_an_unknown_column_is_answered_with_the_known_ones(tool_client, tool):
    error = await tool_client.refused(tool, **LISTS[tool], fields=["xyzzy"])
    assert error.startswith("fields: there is no column 'xyzzy'.")


NEWEST = (
    ("ListTasks", "start_time"),
    ("ListChanges", "time"),
    ("ListBackups", "creation"),
    ("ListIsos", "creation"),
)


@pytest.mark.parametrize(("tool", "time"), NEWEST)
async def test_a_page_that_ends_between_equal_times_says_so(tool_client, tool, time):
    arguments = {**LISTS.get(tool, {"cluster_name": "prod"}), "fields": [time]}
    times = (await tool_client(tool, **arguments, limit=12)).column(time)
    for limit in range(1, len(times)):
        notes = (await tool_client(tool, **arguments, limit=limit)).notes
        is_equal = times[limit - 1] is not None and times[limit - 1] == times[limit]
        assert (f", the next one of the same {time}" in notes) == is_equal


async def test_a_long_list_is_written_outside_of_the_event_loop(tool_client, monkeypatch):
    threads, rows = [], Writer.rows

    def recorded(writer, answer):
        threads.append(threading.current_thread())
        return rows(writer, answer)

    monkeypatch.setattr(Writer, "rows", recorded)
    fields = ["vmid", "name", "status"]
    query = {"from": "guests", "select": fields}
    for most in (10_000, 100):
        monkeypatch.setattr(pipeline, "MANY_CELLS", most)
        for call in (("ListVms", {"fields": fields}), ("ExecuteQuery", {"query": query})):
            answer = await tool_client(call[0], **call[1])
            assert answer.column("vmid")
    assert [thread is threading.main_thread() for thread in threads] == [True, True, False, False]
