"""Words and forms that people and models write for times, choices, limits and conditions."""

import json

import pytest

from pvemcp_server.admin.audit import Search
from pvemcp_server.query.values import time_of
from pvemcp_server.tables import tables
from pvemcp_server.toolkit.registry import tools

from .few_guests import few_guests

pytestmark = pytest.mark.anyio

SCENARIO = few_guests
KEEPS_ANSWERS = True

PROD = {"cluster_name": "prod"}
TIMES = (
    *("24h", "-24h", "P1D", "-1y", "yesterday", "28.11.2026", "1795000000", "7 days ago", "now"),
    *("2026-11-28", "2026-11-28T08:00:00Z"),
)
FRAMES = {"1h": "hour", "24h": "day", "7d": "week", "30d": "month", "1y": "year"}


def condition(field, operator, value):
    return {"conditions": [{"field": field, "operator": operator, "value": [value]}]}


@pytest.mark.parametrize("time", TIMES)
async def test_a_time_is_read_alike_in_tools_queries_and_the_audit(tool_client, time):
    assert not (await tool_client("ListTasks", **PROD, since=time)).failed
    query = {"from": "tasks", "select": ["upid"], "where": condition("start_time", ">=", time)}
    assert not (await tool_client("ExecuteQuery", **PROD, query=query)).failed
    now = Search(since="now").since
    assert abs(Search(since=time).since.timestamp() - time_of(time, now)) < 5


async def test_a_limit_of_thousands_of_digits_is_the_largest(tool_client):
    most = await tool_client("ListTasks", **PROD, limit=500)
    assert await tool_client("ListTasks", **PROD, limit="9" * 5000) == most


async def test_a_time_beyond_the_calendar_is_its_first_or_last(tool_client):
    assert not (await tool_client("ListTasks", **PROD, since="-999999999y")).failed
    future = await tool_client.refused("ListTasks", **PROD, since="+999999999y")
    assert "is in the future" in future
    assert Search(since="-999999999y").since.year == 1
    assert Search(since="+999999999y").since.year == 9999


async def test_a_distance_without_a_sign_is_named_in_queries(tool_client):
    query = {"from": "replications", "where": condition("next_sync", "<", "24h")}
    answer = await tool_client("ExecuteQuery", **PROD, query=query)
    assert '"24h" is read as 24h ago; "+24h" is from now on.' in answer.notes


async def test_no_time_is_answered_with_examples(tool_client):
    error = await tool_client.refused("ListTasks", **PROD, since="next tuesday")
    assert "ISO 8601" in error


@pytest.mark.parametrize("word", FRAMES)
async def test_spans_are_read_as_time_frames_by_every_tool_and_table(tool_client, word):
    for tool, what in (("ListVmRrdData", {"vmids": [101]}), ("ListNodeRrdData", {}),
                       ("ListStorageRrdData", {"storage": "ceph-vm"})):  # fmt: skip
        answers = [
            await tool_client(tool, **PROD, **what, time_frame=frame)
            for frame in (word, FRAMES[word])
        ]
        assert answers[0].data == answers[1].data
    for table in (name for name, table in tables().items() if "time_frame" in table.fields):
        query = {"from": table, "select": ["time_frame"], "limit": 1}
        query["where"] = condition("time_frame", "=", word)
        answer = await tool_client("ExecuteQuery", **PROD, query=query)
        assert answer.data == [{"time_frame": FRAMES[word]}], table


def test_every_tool_with_a_time_frame_is_in_the_test_above():
    named = {name for name, tool in tools().items() if "time_frame" in tool.arguments.model_fields}
    assert named == {"ListVmRrdData", "ListNodeRrdData", "ListStorageRrdData"}


async def test_json_is_a_format(tool_client):
    answer = await tool_client("ListNodes", **PROD, format="json")
    assert answer.text == (await tool_client("ListNodes", **PROD, format="JsonNormal")).text


@pytest.mark.parametrize("word", ["all", "ALL", "*", "any"])
async def test_all_clusters_may_be_named_as_such(tool_client, word):
    answer = await tool_client("ListNodes", cluster_name=word)
    assert set(answer.column("cluster")) == {"home-lab", "prod"}
    error = await tool_client.refused("GetClusterStatus", cluster_name=word)
    assert error.startswith("cluster_name: say which cluster; you reach home-lab, prod.")


@pytest.mark.parametrize("limit", [0, "0", 5000, "5000"])
async def test_limits_outside_the_bounds_are_read_as_none_or_the_most(tool_client, limit):
    for tool in ("ListTasks", "ListNodes"):
        assert (await tool_client(tool, **PROD, limit=limit)).data
    query = {"from": "guests", "select": ["vmid"], "limit": limit}
    assert (await tool_client("ExecuteQuery", **PROD, query=query)).data
    assert (await tool_client("ListTasks", **PROD, limit=-1)).failed


@pytest.mark.parametrize(("word", "type_"), [("vm", "qemu"), ("VMs", "qemu"), ("container", "lxc")])
async def test_words_for_types_of_guests_are_read(tool_client, word, type_):
    answer = await tool_client("ListVms", **PROD, type=word, fields=["type"])
    assert set(answer.column("type")) == {type_}


async def test_restart_is_a_reboot(tool_client):
    answer = await tool_client("ChangeVmState", **PROD, vmid=105, action="restart", dry_run=True)
    assert answer.data["action"] == "Reboot"


@pytest.mark.parametrize("tool", ["DeleteIso", "DeleteStorageContent"])
async def test_a_file_name_is_answered_with_its_volume(tool_client, tool):
    name = "debian-12.11.0-amd64-netinst.iso"
    error = await tool_client.refused(tool, **PROD, node="pve01", storage="local", volid=name)
    assert error.endswith(f"Did you mean local:iso/{name}?")


@pytest.mark.parametrize(
    ("where", "form"),
    [
        ({"status": "running"}, '{"field": "status", "operator": "=", "value": ["running"]}'),
        ({"vmid": [1, 2]}, '{"field": "vmid", "operator": "IN", "value": [1, 2]}'),
        (
            {"node": "a", "cpu_usage": {"$gt": 5}},
            (
                '{"conditions": [{"field": "node", "operator": "=", "value": ["a"]}, '
                '{"field": "cpu_usage", "operator": ">", "value": [5]}]}'
            ),
        ),
        ({"and": [{}]}, '{"logic": "and", "conditions": […]}'),
        ({"$or": []}, '{"logic": "or", "conditions": […]}'),
        (
            {"field": "status", "op": "=", "value": "running"},
            '{"field": "status", "operator": "=", "value": "running"}',
        ),
        ({str(n): n for n in range(99)}, '{"field": "status", "operator": "=", "value": […]}'),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
async def test_conditions_in_other_languages_are_answered_with_ours(
    tool_client, where, form, nested
):
    query = {"from": "guests", "where": {"conditions": [where]} if nested else where}
    error = await tool_client.refused("ExecuteQuery", **PROD, query=query)
    assert error.endswith(f" is no condition. Write {form}.")
    if "…" not in form:
        written = {"from": "guests", "select": ["vmid"], "where": json.loads(form)}
        assert not (await tool_client("ExecuteQuery", **PROD, query=written)).failed
