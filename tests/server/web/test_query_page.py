"""The page Query: values for people with the exact ones on hover, and charts of groups."""

import json
import re

import pytest

from pvemcp_server.tables.rows import Unit
from pvemcp_server.web.figures import Cell, cell_of, humanized

pytestmark = pytest.mark.anyio


async def run(front, **query) -> str:
    answer = await front.post("/admin/query/run", query=json.dumps(query), cluster="prod")
    return answer.text


async def test_values_have_units_and_the_exact_value_on_hover(equipped):
    fields = ["vmid", "memory_max", "uptime", "is_template"]
    order = [{"field": "memory_max", "direction": "desc"}]
    page = await run(equipped, **{"from": "guests", "select": fields, "orderBy": order, "limit": 1})
    cells = re.findall(r"<td([^>]*)>(.*?)</td>", page.split("<tbody>")[1])
    (vmid, memory, _, template) = cells
    assert vmid[0] == ' class="number nowrap"'
    exact = re.search(r'title="(\d+) bytes"', memory[0])[1]
    assert humanized(int(exact), "bytes") == memory[1]
    assert template[1] == "false"


async def test_a_grouped_answer_has_a_chart_of_each_figure(equipped):
    select = ["node", "COUNT(*) as guests", "SUM(memory_max) as memory"]
    page = await run(equipped, **{"from": "guests", "select": select, "groupBy": ["node"]})
    assert re.findall(r"<figcaption>(.*?)</figcaption>", page) == [
        "guests by node",
        "memory by node",
    ]
    assert page.count('<th scope="row"><bdi>pve01</bdi>') == 2
    assert "<figure" not in await run(equipped, **{"from": "guests", "limit": 3})
    assert "<figure" not in await run(equipped, **{"from": "guests", "select": ["COUNT(*)"]})


async def test_times_of_rows_are_for_the_browsers_zone(equipped):
    page = await run(equipped, **{"from": "tasks", "select": ["start_time"], "limit": 1})
    assert re.search(r'<time datetime="\S+Z" data-local="moment">', page)


async def test_the_editor_gets_its_names_from_the_tables_beside_it(equipped):
    page = (await equipped.get("/admin/query")).text
    guests = page.split('data-table="guests"')[1].split("</details>")[0]
    assert "<code data-field>memory_usage</code>" in guests
    assert '<code data-relation="nodes">node.…</code>' in guests
    assert "NOT IN" in re.search(r'data-operators="([^"]+)"', page)[1].split(",")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (40758433293, Unit.BYTES, "38.0 GiB"),
        (0, Unit.BYTES, "0 B"),
        (1536, Unit.BYTES_PER_SECOND, "1.5 KiB/s"),
        (2048, Unit.MIB, "2.0 GiB"),
        (42.5, Unit.PERCENT, "42.5 %"),
        (273_904, Unit.SECONDS, "3 d 4 h"),
        (0.5, Unit.SECONDS, "0.5 s"),
        (86_400, Unit.SECONDS, "1 d"),
        (-30, Unit.SECONDS, "-30 s"),
        (1234567, Unit.COUNT, "1,234,567"),
        (101, None, "101"),
    ],
)
async def test_numbers_are_written_in_their_unit(value, unit, text):
    assert humanized(value, unit) == text


async def test_a_cell_without_a_number_is_shown_as_it_is():
    assert cell_of(None, "bytes") == Cell("–")
    assert cell_of(True, None) == Cell("true")
    assert cell_of(["a", "ü"], None) == Cell('["a", "ü"]')
    assert cell_of("2026-11-30", Unit.TIME) == Cell("2026-11-30")
    assert cell_of("not a time, though long", Unit.TIME) == Cell("not a time, though long")
