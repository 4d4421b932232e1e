"""Troubles from public reports (docs/contributors/public-reports.md), tried on the tools."""

from contextlib import contextmanager
from dataclasses import replace

import pytest

from proxmox_client.api import tasks
from proxmox_client.emulator.state.user_config import Token, User

from .altered import RESOURCES, altered, rows_changed

pytestmark = pytest.mark.anyio

PROD = {"cluster_name": "prod"}


def answer_of(data):
    """Return the change of every response to one with this data."""
    return lambda response: response._replace(body=f'{{"data":{data}}}'.encode())


@contextmanager
def failing(client, path, message):
    """Let requests to a path of prod fail with a message."""
    emulated = client["prod"].emulated
    fault = emulated.fault("error", path=path, message=message)
    try:
        yield
    finally:
        emulated.faults.remove(fault)


@pytest.fixture
async def shared_backups(demo_client):
    """Put backups of prod on the storage of home-lab, as if the clusters shared it."""
    states = [demo_client[name].emulated.state for name in ("prod", "home-lab")]
    common = [
        volume
        for volume in states[0].storages["pbs-main"].volumes("pve01").values()
        if volume.vmid == 100
    ]
    there = states[1].storages["nas-backup"].volumes("pve")
    for volume in common:
        volid = volume.volid.replace("pbs-main", "nas-backup")
        there[volid] = replace(volume, volid=volid)
    return len(common)


@pytest.mark.parametrize(
    "call",
    [
        ("ListBackups", {}),
        ("ListBackups", {"vmid": 100}),
        ("ExecuteQuery", {"query": {"from": "backups", "select": ["COUNT(*) as n"]}}),
        ("ExecuteQuery", {"query": {"from": "storage_content", "select": ["COUNT(*) as n"]}}),
    ],
    ids=str,
)
async def test_backups_that_two_clusters_list_are_noted(demo_client, shared_backups, call):
    tool, arguments = call
    answer = await demo_client(tool, **arguments)
    assert f"{shared_backups} backups are on nas-backup of home-lab and pbs-main of prod alike" in (
        answer.notes
    )


async def test_backups_of_one_cluster_are_not_taken_for_shared_ones(tool_client):
    assert "alike" not in (await tool_client("ListBackups")).notes


async def test_a_guest_is_not_sent_to_a_node_in_ha_maintenance(demo_client):
    state = demo_client["prod"].emulated.state
    state.nodes["pve02"].maintenance = True
    target = {**PROD, "target_node": "pve02", "online": True, "dry_run": True}
    error = await demo_client.refused("MigrateVm", vmid=103, **target)
    assert "pve02 is in HA maintenance" in error
    assert not (await demo_client("MigrateVm", vmid=102, **target)).failed, "HA does not manage it"
    elsewhere = {**target, "target_node": "pve01"}
    assert not (await demo_client("MigrateVm", vmid=103, **elsewhere)).failed


async def test_the_lock_of_an_aborted_task_has_a_way_out(demo_client):
    guests = demo_client["prod"].emulated.state.guests
    for vmid, command in ((102, "qm unlock 102"), (300, "pct unlock 300")):
        guests[vmid].config["lock"] = "snapshot-delete"
        guests[vmid].touch()
        error = await demo_client.refused("BackupVm", **PROD, vmid=vmid, storage="pbs-main")
        assert "locked (snapshot-delete)" in error
        assert f"left the lock: UnlockVm, or an administrator on {guests[vmid].node}" in error
        assert command in error


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (Token("mon", "00000000-0000-0000-0000-000000000001"), "invalid token value"),
        (Token("mon", "00000000-0000-0000-0000-000000000000", expire=1), "access expired"),
        (Token("other", "00000000-0000-0000-0000-000000000000"), "no such token"),
    ],
    ids=["wrong", "expired", "missing"],
)
async def test_a_refused_sign_in_has_the_reason_that_proxmox_gives(
    demo_client, with_token, token, reason
):
    account = ("watch@pve!mon", "00000000-0000-0000-0000-000000000000")
    # 8.4 gives a reason, 9.2 the same words for all
    for name, words in (("home-lab", reason), ("prod", "Authentication failed!")):
        user = User("watch@pve", tokens={token.name: token})
        demo_client[name].emulated.state.user_config.users[user.userid] = user
        client = await with_token(demo_client, name, account)
        error = await client.refused("ListVms", cluster_name=name)
        assert "account watch@pve!mon: its token is wrong, missing, expired or disabled" in error
        assert words in error


@pytest.mark.parametrize("wearout", [-55, "-3"])
async def test_an_ssd_beyond_its_rated_life_has_none_left(tool_client, wearout):
    change = rows_changed(lambda row: {**row, "wearout": wearout})
    with altered(tool_client["prod"], "/nodes/pve01/disks/list", change):
        answer = await tool_client("ListNodeDisks", **PROD, node="pve01")
    assert set(answer.column("wearout")) == {0}


async def test_snapshots_whose_first_parent_is_gone_are_listed(tool_client):
    rows = (
        '[{"name":"b","parent":"gone","snaptime":1700000000},'
        '{"name":"c","parent":"b","snaptime":1700000100},{"name":"current","parent":"c"}]'
    )
    path = "/nodes/pve01/qemu/101/snapshot"
    with altered(tool_client["prod"], path, answer_of(rows)):
        answer = await tool_client("ListSnapshots", **PROD, vmids=[101], detail_level="Full")
    assert [(row["name"], row["parent"]) for row in answer.data] == [("b", "gone"), ("c", "b")]


async def test_metrics_of_one_guest_that_fail_leave_those_of_the_others(tool_client):
    words = "got wrong time resolution (60 != 1800)"
    with failing(tool_client, "/nodes/pve01/qemu/101/rrddata", words):
        answer = await tool_client(
            "ListVmRrdData", **PROD, vmids=[100, 101], time_frame="Hour", metrics=["Cpu"]
        )
    assert set(answer.column("vmid")) == {100}
    assert f"guest 101. Proxmox: '{words}'" in answer.notes


async def test_a_guest_without_a_name_is_found(tool_client):
    def change(row):
        return {key: row[key] for key in row if key != "name"} if row.get("vmid") == 100 else row

    with altered(tool_client["prod"], RESOURCES, rows_changed(change)):
        answer = await tool_client("ListVms", **PROD)
    assert (answer.data[0]["vmid"], answer.data[0]["name"]) == (100, "")


ETHERNET = (
    '{"name":"eth0","ip-addresses":[{"ip-address":"fe80::1%eth0"},{"ip-address":"10.0.0.5"}]}'
)


@pytest.mark.parametrize(
    ("interfaces", "addresses"),
    [
        ('{"result":[]}', []),
        ('{"result":[{"name":"lo"},{"name":"Ethernet","ip-addresses":null}]}', []),
        (f'{{"result":[{{"name":"docker0"}},{ETHERNET}]}}', ["10.0.0.5"]),
    ],
)
async def test_interfaces_without_addresses_cost_nothing(tool_client, interfaces, addresses):
    path = "/nodes/pve01/qemu/101/agent/network-get-interfaces"
    data = interfaces
    with altered(tool_client["prod"], path, answer_of(data)):
        answer = await tool_client("GetVmStatus", **PROD, vmid=101)
    assert (answer.data["agent"], answer.data["ip_addresses"]) == ("reachable", addresses)


WRITES = [
    ("CreateVmSnapshot", "POST", {"vmid": 101, "snapshot_name": "pre1"}),
    ("ChangeVmState", "POST", {"vmid": 101, "action": "Reboot"}),
    ("BackupVm", "POST", {"vmid": 101, "storage": "pbs-main"}),
    ("MigrateVm", "POST", {"vmid": 102, "target_node": "pve02", "online": True}),
    ("CloneVm", "POST", {"source": "101", "name": "copy"}),
    ("DeleteVmSnapshot", "DELETE", {"vmid": 101, "snapshot_name": "before-vacuum"}),
]


@pytest.mark.parametrize("shape", ["null", "list", "html", "half"])
async def test_a_write_whose_answer_names_no_task_may_have_begun(demo_client, shape):
    emulated = demo_client["prod"].emulated
    for tool, method, arguments in WRITES:
        fault = emulated.fault("malformed", method=method, path="/nodes/", shape=shape)
        error = await demo_client.refused(tool, **PROD, **arguments)
        emulated.faults.remove(fault)
        await emulated.tasks.settle()
        assert "Whether it was carried out is not known" in error, tool


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "error", "message": "got timeout"},
        {"kind": "error", "message": "RPCEnvironment init request failed"},
        {"kind": "malformed", "shape": "html"},
        {"kind": "malformed", "shape": "null"},
        {"kind": "drop"},
    ],
    ids=str,
)
async def test_a_poll_that_fails_does_not_end_the_wait(demo_client, fault):
    demo_client["prod"].emulated.fault(path="/nodes/[^/]+/tasks/", method="GET", times=2, **fault)
    answer = await demo_client("BackupVm", **PROD, vmid=200, wait=True)
    assert answer.data["ok"] is True, answer.text


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "error", "message": "got timeout"},
        {"kind": "unauthenticated"},
        {"kind": "forbidden", "message": "/nodes/pve02, Sys.Audit"},
        {"kind": "malformed", "shape": "null"},
    ],
    ids=str,
)
async def test_a_wait_that_fails_keeps_the_upid_of_the_write(demo_client, monkeypatch, fault):
    monkeypatch.setattr(tasks, "_LONGEST_OUTAGE", 0.0)
    demo_client["prod"].emulated.fault(path="/nodes/[^/]+/tasks/", method="GET", **fault)
    answer = await demo_client("BackupVm", **PROD, vmid=200, wait=True)
    assert (answer.data["success"], answer.data["task_status"]) == (True, "unknown")
    assert answer.data["upid"].startswith("UPID:pve02:")
    assert "GetTask with this upid" in answer.notes
