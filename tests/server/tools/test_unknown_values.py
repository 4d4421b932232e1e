"""Values that a column cannot know: an answer that they decide says how many rows it misses."""

import pytest

from pvemcp_server.tables import tables
from pvemcp_server.tables.rows import Kind, fields_of
from pvemcp_server.toolkit.registry import tools

pytestmark = pytest.mark.anyio


def where(field, operator, value, *more):
    first = {"field": field, "operator": operator, "value": value}
    return {"logic": "and", "conditions": [first, *more]}


VMS = {"field": "type", "operator": "=", "value": "qemu"}
DECIDED = {
    "by a condition": {"where": where("disk_usage_percentage", ">", 90)},
    "by one of several": {"where": where("disk_usage_percentage", ">", 90, VMS)},
    "by the order": {"orderBy": [{"field": "disk_usage_percentage"}], "limit": 3},
    "by a sum": {"select": ["AVG(disk_usage_percentage) as used"]},
    "by a group's sum": {
        "select": ["node", "MAX(disk_usage_percentage) as used"],
        "groupBy": ["node"],
        "having": where("MAX(disk_usage_percentage)", ">", 90),
    },
}


@pytest.mark.parametrize("way", DECIDED)
async def test_an_answer_that_unknown_values_decide_counts_them(tool_client, way):
    answer = await tool_client("ExecuteQuery", query={"from": "guests", **DECIDED[way]})
    assert "disk_usage_percentage is unknown in " in answer.notes
    assert "not for VMs" in answer.notes


@pytest.mark.parametrize(
    "query",
    [
        {"where": where("disk_usage_percentage", "IS NULL", [])},
        {"where": where("status", "=", "unknown")},
        {"select": ["vmid", "disk_usage_percentage"]},
        {"where": where("pool", "=", "web")},
    ],
)
async def test_an_answer_that_they_do_not_decide_stays_without_the_note(tool_client, query):
    answer = await tool_client("ExecuteQuery", query={"from": "guests", **query})
    assert "is unknown in" not in answer.notes


async def test_rows_that_other_conditions_leave_out_are_not_counted(tool_client):
    running = {"field": "status", "operator": "=", "value": "running"}
    containers = {"field": "type", "operator": "=", "value": "lxc"}
    query = {
        "from": "guests",
        "select": ["COUNT(*) as n"],
        "where": where("disk_usage_percentage", ">", 101, running, containers),
    }
    answer = await tool_client("ExecuteQuery", query=query)
    assert "disk_usage_percentage is unknown" not in answer.notes


@pytest.mark.parametrize(
    ("table", "condition", "note"),
    [
        ("networks", where("ip", "CONTAINS", "10.20."), "DHCP or the guest itself"),
        ("node_disks", where("wearout", "<", 20), "only some SSDs report it"),
        ("node_disks", where("wearout", "<", 20), "100 is new"),
        ("guests", where("status", "=", "running"), "status is unknown in 21 rows"),
        ("guests", where("status", "=", "running"), "Paused VMs count as running"),
        ("guests", where("memory_usage", ">", 1), "memory_usage is unknown in"),
        ("nodes", where("cpu_usage", ">", 1), "cpu_usage is unknown in 1 row"),
    ],
)
async def test_columns_report_what_they_cannot_know(tool_client, table, condition, note):
    answer = await tool_client("ExecuteQuery", query={"from": table, "where": condition})
    assert note in answer.notes


async def test_a_condition_on_paused_asks_for_the_real_state(tool_client):
    query = {"from": "guests", "where": where("status", "IN", ["paused", "running"])}
    answer = await tool_client("ExecuteQuery", query=query)
    assert "Paused VMs count" not in answer.notes


LISTS = {
    name: {"detail_level": "Full"} if "detail_level" in tool.input_schema["properties"] else {}
    for name, tool in tools().items()
    if tool.lists and tool.answer and any(f.caveat for f in fields_of(tool.answer).values())
}


@pytest.mark.parametrize("tool", LISTS)
async def test_a_list_has_the_caveats_of_the_columns_that_it_shows(tool_client, tool):
    answer = await tool_client(tool, **LISTS[tool])
    shown = [field for field in fields_of(tools()[tool].answer).values() if field.caveat]
    for field in shown:
        about, values = field.caveat.about, [row.get(field.name) for row in answer.data]
        present = any(value in about if about else value is not None for value in values)
        assert (field.caveat.text in answer.notes) is present, field.name
        assert present, field.name
    other = next(iter(answer.data[0].keys() - {field.name for field in shown}))
    answer = await tool_client(tool, fields=[other])
    assert not any(field.caveat.text in answer.notes for field in shown)


@pytest.mark.parametrize(
    ("arguments", "noted"),
    [
        ({}, True),
        ({"status": "running"}, True),
        ({"status": "running", "fields": ["vmid"]}, True),
        ({"fields": ["vmid"]}, False),
        ({"status": "stopped"}, False),
        ({"status": "paused"}, False),
    ],
)
async def test_a_list_says_that_paused_vms_count_as_running(tool_client, arguments, noted):
    answer = await tool_client("ListVms", **arguments)
    assert ("Paused VMs count as running here" in answer.notes) is noted


def test_measured_values_of_every_table_have_a_gap():
    for table in tables().values():
        for field in table.fields.values():
            measured = field.unit is not None and field.unit.value in ("bytes", "percent 0-100")
            if field.nullable and measured and field.kind is not Kind.TIME:
                assert field.gap, f"{table.name}.{field.name}"
