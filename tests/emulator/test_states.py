"""Unusual states of nodes, storages and guests, each switched on by its name."""

import json

import pytest

from proxmox_client.emulator import Emulator, Scenario
from proxmox_client.emulator.faults import NO_FILE_SYSTEM
from proxmox_client.emulator.http.malformations import MALFORMATIONS
from proxmox_client.emulator.state.guest import Snapshot
from proxmox_client.emulator.state.jobs import Replication
from proxmox_client.emulator.state.storage import Volume
from proxmox_client.emulator.state.user_config import AclEntry, Group, Token, User

pytestmark = pytest.mark.anyio
SIZES = {"maxcpu", "maxmem", "maxdisk"}


async def rows_of(admin, kind, node="pve2"):
    rows = await admin.get("/cluster/resources", type=kind)
    return [row for row in rows if row["node"] == node]


async def test_without_pvestatd_figures_are_unknown_and_requests_are_answered(admin, lab):
    lab.stop_service("pve2", "pvestatd")
    (node,) = [row for row in await admin.get("/nodes") if row["node"] == "pve2"]
    assert node["status"] == "unknown"
    assert node.keys() == {"node", "id", "type", "status", "ssl_fingerprint"}
    members = await admin.get("/cluster/status")
    assert [row["online"] for row in members if row["type"] == "node"] == [1, 1, 1]
    guests, storages = await rows_of(admin, "vm"), await rows_of(admin, "storage")
    assert {row["status"] for row in [*guests, *storages]} == {"unknown"}
    assert not any(row.keys() & {*SIZES, "disk", "name"} for row in [*guests, *storages])
    assert (await admin.get("/nodes/pve2/qemu"))[0]["name"]
    assert (await admin.get("/nodes/pve2/status"))["uptime"] > 0


async def test_figures_of_pvestatd_stay_for_five_minutes_and_return(admin, lab):
    lab.stop_service("pve2", "pvestatd", seconds_ago=10)
    assert all("name" in row for row in await rows_of(admin, "vm"))
    lab.state.nodes["pve2"].lost -= 300
    assert not any("name" in row for row in await rows_of(admin, "vm"))
    lab.start_service("pve2", "pvestatd")
    assert all("name" in row for row in await rows_of(admin, "vm"))


async def test_a_node_that_is_off_for_long_has_no_sizes(admin, lab):
    await lab.node_down("pve2", seconds_ago=600)
    (node,) = [row for row in await admin.get("/nodes") if row["node"] == "pve2"]
    assert node["status"] == "offline"
    assert not node.keys() & SIZES
    assert {row["status"] for row in await rows_of(admin, "storage")} == {"unknown"}


async def test_without_pmxcfs_every_request_fails_without_a_body(admin, lab, open_client):
    lab.stop_service("pve1", "pmxcfs")
    for method, path in (("GET", "/version"), ("GET", "/access/domains"), ("POST", "/pools")):
        response = await admin.request(method, path)
        assert (response.status_code, response.reason_phrase) == (500, NO_FILE_SYSTEM)
        assert response.content == b""
    async with open_client(lab, lab.token, node=1) as other:
        assert (await other.request("GET", "/nodes/pve1/status")).reason_phrase == NO_FILE_SYSTEM
        members = {row["name"]: row["online"] for row in (await other.get("/cluster/status"))[1:]}
        assert members == {"pve1": 0, "pve2": 1, "pve3": 1}


async def test_a_restarted_pmxcfs_has_no_figures_for_ten_seconds(admin, lab, open_client):
    lab.stop_service("pve1", "pmxcfs")
    lab.start_service("pve1", "pmxcfs")
    lab.state.nodes["pve1"].joined = lab.state.now + 1000
    assert {row["status"] for row in await admin.get("/nodes")} == {"unknown"}
    assert {row["status"] for row in await admin.get("/cluster/resources", type="vm")} == {
        "unknown"
    }
    async with open_client(lab, lab.token, node=1) as other:
        assert {row["status"] for row in await other.get("/nodes")} == {"online"}
    lab.state.nodes["pve1"].joined = lab.state.now - 11
    assert {row["status"] for row in await admin.get("/nodes")} == {"online"}


async def test_without_pvedaemon_only_its_requests_are_refused(admin, lab, open_client):
    lab.stop_service("pve1", "pvedaemon")
    assert await admin.get("/cluster/resources")
    assert await admin.get("/nodes/pve1/qemu/100/config")
    async with open_client(lab, lab.token, node=1) as other:
        for client, path in ((admin, "/cluster/status"), (other, "/nodes/pve1/storage")):
            response = await client.request("GET", path)
            assert (response.status_code, response.reason_phrase) == (595, "Connection refused")


def test_an_unknown_service_is_refused(lab):
    with pytest.raises(ValueError, match="'apache' is not one of pvestatd, pvedaemon, pmxcfs"):
        lab.stop_service("pve1", "apache")


async def test_a_failed_storage_is_inactive_and_its_content_an_error(admin, lab, reason_of):
    lab.fail_storage("shared", nodes=["pve1"])
    status = await admin.get("/nodes/pve1/storage/shared/status")
    assert (status["enabled"], status["active"], status["total"]) == (1, 0, 0)
    (row,) = await admin.get("/nodes/pve1/storage", storage="shared")
    assert "used_fraction" not in row
    response = await admin.request("GET", "/nodes/pve1/storage/shared/content")
    assert reason_of(response) == "storage 'shared' is not online"
    states = await admin.get("/cluster/resources", type="storage")
    shared = {row["node"]: row["status"] for row in states if row["storage"] == "shared"}
    assert shared == {"pve1": "unknown", "pve2": "available", "pve3": "available"}
    lab.repair_storage("shared")
    assert (await admin.get("/nodes/pve1/storage/shared/status"))["active"] == 1


async def test_a_storage_of_other_nodes_is_listed_as_disabled(admin, lab):
    lab.state.storages["local"].nodes = ("pve1",)
    (row,) = await admin.get("/nodes/pve2/storage", storage="local")
    assert (row["enabled"], row["active"]) == (0, 0)
    assert await admin.get("/nodes/pve2/storage", storage="local", enabled=1) == []


async def test_a_refused_agent_command_is_an_answer_and_others_work(admin, lab, reason_of):
    lab.refuse_agent(100, ["get-osinfo", "exec"])
    agent = "/nodes/pve1/qemu/100/agent"
    refused = (await admin.get(f"{agent}/get-osinfo"))["result"]
    assert refused["error"]["class"] == "CommandNotFound"
    assert (await admin.get(f"{agent}/get-host-name"))["result"]["host-name"]
    response = await admin.request("POST", f"{agent}/exec", command="id")
    assert reason_of(response).startswith("Agent error: Command guest-exec has been disabled")


async def test_agent_commands_run_end_and_fail(admin):
    agent = "/nodes/pve1/qemu/100/agent"

    async def ended(*command):
        pid = (await admin.data("POST", f"{agent}/exec", command=list(command)))["pid"]
        return await admin.get(f"{agent}/exec-status", pid=pid)

    assert await ended("echo", "hello") == {"exited": 1, "exitcode": 0, "out-data": "hello\n"}
    assert (await ended("false"))["exitcode"] == 1
    assert await ended("sleep", "60") == {"exited": 0}
    response = await admin.request("POST", f"{agent}/exec", command="/no/such")
    assert (response.status_code, response.reason_phrase) == (596, "Broken pipe")


async def test_a_pending_removal_is_gone_from_the_next_and_kept_in_the_running_config(admin, lab):
    path = "/nodes/pve1/qemu/100"
    lab.state.guests[100].config["hotplug"] = "0"
    await admin.data("PUT", f"{path}/config", net1="virtio,bridge=vmbr0")
    lab.state.guests[100].config["net1"] = lab.state.guests[100].pending.pop("net1")
    await admin.data("PUT", f"{path}/config", delete="net1")
    assert "net1" not in await admin.get(f"{path}/config")
    assert "net1" in await admin.get(f"{path}/config", current=1)
    (row,) = [row for row in await admin.get(f"{path}/pending") if row["key"] == "net1"]
    assert row["delete"] == 1
    await admin.data("PUT", f"{path}/config", revert="net1")
    assert "net1" in await admin.get(f"{path}/config")


async def test_an_unlinked_disk_waits_for_the_stop_and_its_volume_goes_with_force(admin, lab):
    guest, path = lab.state.guests[100], "/nodes/pve1/qemu/100"
    guest.config["hotplug"] = "0"
    await admin.data("PUT", f"{path}/unlink", idlist="scsi0", force=1)
    assert guest.removals == {"scsi0": 2}
    assert "scsi0" in await admin.get(f"{path}/config", current=1)


async def test_the_environment_of_a_container_is_separated_by_nul(admin):
    await admin.data("PUT", "/nodes/pve2/lxc/104/config", env="A=1\0SECRET=x y")
    assert (await admin.get("/nodes/pve2/lxc/104/config"))["env"] == "A=1\0SECRET=x y"


async def test_an_incomplete_snapshot_cannot_be_rolled_back(admin, lab):
    lab.state.guests[100].snapshots["half"] = Snapshot("half", 1, state="prepare")
    (row,) = [
        row for row in await admin.get("/nodes/pve1/qemu/100/snapshot") if row["name"] == "half"
    ]
    assert row["snapstate"] == "prepare"
    task = await admin.task("POST", "/nodes/pve1/qemu/100/snapshot/half/rollback")
    assert task["exitstatus"] == "unable to rollback to incomplete snapshot (snapstate = prepare)"


async def test_a_replication_that_never_ran_has_its_next_run_in_1970(admin, lab):
    lab.state.replications["100-0"] = Replication(100, 0, "pve1", "pve2", "*/15")
    status = await admin.get("/nodes/pve1/replication/100-0/status")
    assert (status["last_sync"], status["last_try"], status["next_sync"]) == (0, 0, 900)
    assert "duration" not in status
    (line,) = await admin.get("/nodes/pve1/replication/100-0/log")
    assert line["t"] == "unable to open file - No such file or directory"
    await admin.data("DELETE", "/cluster/replication/100-0")
    assert (await admin.get("/cluster/replication/100-0"))["remove_job"] == "full"


@pytest.mark.parametrize("shape", MALFORMATIONS)
async def test_a_malformed_body_replaces_a_success_only(admin, lab, shape):
    lab.fault("malformed", shape=shape)
    response = await admin.request("GET", "/nodes")
    assert response.status_code == 200
    try:
        body = json.loads(response.content)
    except ValueError:
        body = None
    assert body is None or body != {"data": await _nodes(lab, admin)}
    assert (await admin.request("GET", "/nodes/nope/status")).status_code == 500


async def _nodes(lab, admin):
    lab.faults.clear()
    return await admin.get("/nodes")


async def test_an_error_without_a_body_has_its_text_in_the_status_line(admin, lab):
    lab.fault("no-body", path="/version", message="got no worker upid")
    response = await admin.request("GET", "/version")
    assert (response.status_code, response.reason_phrase) == (500, "got no worker upid")
    assert response.content == b""


def test_an_unknown_shape_is_refused(lab):
    with pytest.raises(ValueError, match="'cake' is not one of html, "):
        lab.fault("malformed", shape="cake")


async def test_a_scenario_begins_with_its_actions():
    text = """
    clusters:
      - name: sick
        nodes: 3
        guests: 3
        actions:
          - {action: stop-service, node: pve2, service: pvestatd}
          - {action: fail-storage, name: shared, error: "storage 'shared' is not online"}
          - {action: node-down, node: pve3, seconds_ago: 600}
    """
    async with Emulator(Scenario.load(text)) as pve:
        state = pve["sick"].state
        assert state.nodes["pve2"].stopped == {"pvestatd"}
        assert state.storages["shared"].failure_on("pve1")
        assert not state.nodes["pve3"].online


@pytest.fixture
async def narrow(lab, open_client):
    """Open a client of an account with a group and a token without privilege separation."""
    config = lab.state.user_config
    config.groups["ops"] = Group("ops")
    config.roles["Restarter"] = frozenset({"VM.Audit", "VM.PowerMgmt"})
    config.users["kim@pve"] = User("kim@pve", groups={"ops"})
    config.users["kim@pve"].tokens["tt"] = Token("tt", "secret", privsep=False)
    config.acl += [
        AclEntry("/", "user", "kim@pve", "PVEAuditor"),
        AclEntry("/vms", "group", "ops", "PVEVMAdmin"),
        AclEntry("/vms/100", "user", "kim@pve", "Restarter"),
        AclEntry("/vms/101", "group", "ops", "PVEVMUser"),
        AclEntry("/vms/101", "user", "kim@pve", "NoAccess"),
        AclEntry("/storage/local", "user", "kim@pve", "PVEDatastoreUser", propagate=False),
    ]
    async with open_client(lab, ("kim@pve!tt", "secret")) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "held", "missing"),
    [
        ("/vms/102", {"VM.Config.Disk", "VM.Allocate"}, {"Sys.Audit"}),
        ("/vms/100", {"VM.Audit", "VM.PowerMgmt"}, {"VM.Config.Disk"}),
        ("/vms/101", set(), {"VM.Audit"}),
        ("/nodes/pve1", {"Sys.Audit"}, {"Sys.Modify"}),
        ("/storage/local", {"Datastore.AllocateSpace"}, {"Sys.Audit"}),
    ],
)
async def test_an_entry_on_a_deeper_path_replaces_those_above_it(narrow, path, held, missing):
    privileges = (await narrow.get("/access/permissions", path=path))[path]
    assert held <= privileges.keys()
    assert not missing & privileges.keys()
    if path == "/vms/101":
        assert privileges == {}


async def test_a_privilege_that_is_not_passed_on_has_the_value_0(narrow):
    privileges = (await narrow.get("/access/permissions", path="/storage/local"))["/storage/local"]
    assert set(privileges.values()) == {0}


async def test_no_token_may_see_or_make_tokens_of_its_user(narrow, reason_of):
    for method, path in (("GET", ""), ("POST", "/new"), ("DELETE", "/tt")):
        response = await narrow.request(method, f"/access/users/kim@pve/token{path}")
        assert response.status_code == 403
        assert reason_of(response) == "Permission check failed"


@pytest.mark.parametrize(
    ("role", "contents"),
    [
        ("PVEDatastoreUser", {"iso"}),
        ("PVEDatastoreAdmin", {"iso", "backup", "images", "snippets"}),
    ],
)
async def test_content_is_listed_by_the_rights_on_storage_and_guest(
    lab, open_client, role, contents
):
    storage, config = lab.state.storages["shared"], lab.state.user_config
    for name, content in (("iso/a.iso", "iso"), ("backup/b", "backup"), ("snippets/c", "snippets")):
        storage.put("pve1", Volume(f"shared:{name}", content, "raw", 1, 1, 100))
    config.users["kim@pve"] = User("kim@pve", tokens={"tt": Token("tt", "secret", privsep=False)})
    config.acl.append(AclEntry("/storage/shared", "user", "kim@pve", role))
    async with open_client(lab, ("kim@pve!tt", "secret")) as client:
        rows = await client.get("/nodes/pve1/storage/shared/content")
    assert {row["content"] for row in rows} - {"rootdir"} == contents


async def test_acl_changes_name_what_does_not_exist(admin, reason_of):
    async def reason(**params):
        return reason_of(await admin.request("PUT", "/access/acl", **params))

    assert await reason(path="/vms", roles="Nope", users="mcp@pve") == (
        "ACL update failed: role 'Nope' does not exist"
    )
    assert await reason(path="/vms", roles="PVEAuditor", users="x@pve") == (
        "ACL update failed: user 'x@pve' does not exist"
    )
    response = await admin.request(
        "PUT", "/access/acl", path="/cake", roles="PVEAuditor", users="mcp@pve"
    )
    assert response.json()["errors"] == {"path": "invalid ACL path '/cake'"}
