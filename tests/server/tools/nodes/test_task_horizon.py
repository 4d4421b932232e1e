"""What a list of tasks leaves out: what is no longer on record, and what has another name."""

from importlib import import_module

import pytest

from pvemcp_server.access.model import Resources

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("arguments", [{"since": "-3650d"}, {"vmid": 199999}])
async def test_the_oldest_tasks_on_record_are_named(tool_client, arguments):
    answer = await tool_client("ListTasks", **arguments)
    assert "prod has no older tasks on record than these dates: pve01 20" in answer.notes


async def test_a_recent_list_says_nothing_about_old_tasks(tool_client):
    answer = await tool_client("ListTasks", since="-1h")
    assert "on record" not in answer.notes or not answer.data


async def test_tasks_of_a_guest_leave_out_those_of_jobs(tool_client):
    answer = await tool_client("ListTasks", vmid=105)
    assert "Tasks about several guests have no VMID" in answer.notes


@pytest.mark.parametrize(
    ("word", "types"), [("backup", {"vzdump"}), ("migrate", {"qmigrate", "vzmigrate"})]
)
async def test_a_word_that_people_use_is_read_as_the_types_it_means(tool_client, word, types):
    answer = await tool_client("ListTasks", type=word)
    assert set(answer.column("type")) <= types
    assert answer.data


async def test_an_unknown_type_is_answered_with_the_known_ones(tool_client):
    answer = await tool_client("ListTasks", type="VNC")
    assert answer.data == []
    assert "vncproxy" in answer.notes


async def test_an_unknown_type_in_a_query_is_named(tool_client):
    where = {"field": "type", "operator": "=", "value": "VNC"}
    answer = await tool_client("ExecuteQuery", query={"from": "tasks", "where": where})
    assert "No type 'vnc' in tasks" in answer.notes
    assert "vncproxy" in answer.notes


@pytest.mark.parametrize("types", [["qmreset"], ["qmreset", "qmresume"]])
async def test_a_known_type_without_tasks_is_no_unknown_value(tool_client, types):
    where = {"field": "type", "operator": "IN", "value": types}
    answer = await tool_client("ExecuteQuery", query={"from": "tasks", "where": where})
    assert answer.data == []
    assert "No type" not in answer.notes


@pytest.mark.parametrize(("word", "outcome"), [("failed", "error"), ("success", "ok")])
async def test_a_word_for_an_outcome_is_read_as_the_outcome(tool_client, word, outcome):
    where = {"field": "outcome", "operator": "=", "value": word}
    query = {"from": "tasks", "where": where, "select": ["outcome"], "distinct": True}
    assert (await tool_client("ExecuteQuery", query=query)).data == [{"outcome": outcome}]


async def test_a_type_of_storage_that_is_called_otherwise_is_read_as_its_types(tool_client):
    answer = await tool_client("ListStorage", type="ceph")
    assert "ceph-vm" in answer.text
    assert "nfs-archive" not in answer.text


@pytest.mark.parametrize("latest", [1, 5_000])
async def test_a_narrow_role_learns_nothing_from_the_number_of_tasks(
    tool_client, monkeypatch, latest
):
    monkeypatch.setattr(import_module("pvemcp_server.tables.tasks"), "LATEST", latest)
    narrow = tool_client.scoped(Resources(vmids=frozenset({105})))
    answer = await narrow("ListTasks", cluster_name="prod")
    assert f"Only the latest {latest} tasks of each node of prod were looked at" in answer.notes
