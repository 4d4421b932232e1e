"""ExplainAccess, and lists that are empty only to this account."""

import re

import pytest

from proxmox_client.emulator.access.roles import builtin_roles
from proxmox_client.emulator.state.jobs import Pool
from pvemcp_server.access.model import READS, Resources
from pvemcp_server.clusters.acl import question
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.needs import Extent, extent
from pvemcp_server.toolkit.registry import tools

pytestmark = pytest.mark.anyio

DOWNLOAD = {
    "node": "pve01",
    "storage": "local",
    "source": "https://93.184.216.34/a.iso",
    "filename": "a.iso",
}


async def test_a_full_account_lacks_nothing(tool_client):
    access = (await tool_client("ExplainAccess")).data
    assert access["tools"] == list(tools())
    assert access["not_granted"] == []
    for cluster in access["clusters"]:
        assert cluster["granted"] == [{"resources": "all", "tools": "all"}]
        assert cluster["lacks"] == []
        assert "VM.PowerMgmt on /vms" in cluster["has"]


async def test_what_is_switched_off_needs_no_privileges_and_shows_no_lists(tool_client):
    needed = "VM.GuestAgent.Unrestricted on /vms"
    lists = [{"resources": "all", "programs": ["echo"], "files": ["/etc/hostname"]}]
    (on,) = (await tool_client("ExplainAccess", cluster_name="prod")).data["clusters"]
    assert (needed in on["has"], on["inside_guests"]) == (True, lists)
    tool_client.change(inside_guests=False)
    (off,) = (await tool_client("ExplainAccess", cluster_name="prod")).data["clusters"]
    assert (needed in off["has"], "inside_guests" in off) == (False, False)


async def test_a_read_only_role_lists_the_tools_not_granted(tool_client):
    tool_client.tools = frozenset({READS})
    access = (await tool_client("ExplainAccess")).data
    assert "ListVms" in access["tools"]
    assert "ChangeVmState" in access["not_granted"]
    assert set(access["tools"]) | set(access["not_granted"]) == set(tools())


SEES_ACL = ("/access", "PVEAuditor")


async def test_missing_privileges_come_with_tools_and_the_fix(demo_client, new_token, with_token):
    token = new_token(
        demo_client["prod"].emulated,
        SEES_ACL,
        ("/vms", "PVEAuditor"),
        ("/storage/pbs-main", "PVEDatastoreUser"),
    )
    narrow = await with_token(demo_client, "prod", token)
    cluster = (await narrow("ExplainAccess", cluster_name="prod")).data["clusters"][0]
    assert cluster["account"] == token[0]
    assert "VM.Audit on /vms" in cluster["has"]
    lacks = {missing["privilege"]: missing for missing in cluster["lacks"]}
    assert lacks["VM.PowerMgmt"]["needed_by"] == ["ChangeVmState"]
    role = "MCP-VM.PowerMgmt"
    assert lacks["VM.PowerMgmt"]["fix"] == (
        f"pveum role add {role} --privs VM.PowerMgmt 2>/dev/null"
        f" || pveum role modify {role} --privs VM.PowerMgmt --append 1"
        f" && pveum acl modify /vms --users 'narrow@pve' --roles {role}"
        f" && pveum acl modify /vms --tokens '{token[0]}' --roles {role}"
    )
    assert lacks["Datastore.AllocateSpace"]["only_on"] == ["/storage/pbs-main"]


async def test_an_account_without_the_acl_gets_questions_not_lines(
    demo_client, new_token, with_token
):
    token = new_token(demo_client["prod"].emulated, ("/vms", "PVEAuditor"))
    narrow = await with_token(demo_client, "prod", token)
    cluster = (await narrow("ExplainAccess", cluster_name="prod")).data["clusters"][0]
    assert cluster["lacks"]
    for missing in cluster["lacks"]:
        assert "fix" not in missing
        assert missing["ask"] == question(token[0], missing["path"], [missing["privilege"]])


@pytest.mark.parametrize("cluster", ["home-lab", "prod"])  # Proxmox VE 8 and 9
@pytest.mark.parametrize("separated", [True, False], ids=["separated", "as its user"])
@pytest.mark.parametrize("grant", [SEES_ACL, ("/", "PVEAuditor")], ids=" ".join)
async def test_the_pveum_lines_grant_without_revoking(
    demo_client, new_token, with_token, run_line, cluster, separated, grant
):
    emulated = demo_client[cluster].emulated
    narrow = await with_token(demo_client, cluster, new_token(emulated, grant, separated=separated))
    before = (await narrow("ExplainAccess", cluster_name=cluster)).data["clusters"][0]
    assert "VM.Snapshot" in {missing["privilege"] for missing in before["lacks"]}
    for missing in before["lacks"]:
        run_line(emulated, missing["fix"])
    after = (await narrow("ExplainAccess", cluster_name=cluster)).data["clusters"][0]
    assert after["lacks"] == []
    assert set(after["has"]) > set(before["has"])
    assert (await narrow("ListNodes", cluster_name=cluster)).notes == ""


async def test_backups_are_seen_after_the_lines_for_them_were_run(
    demo_client, new_token, with_token, run_line
):
    emulated = demo_client["prod"].emulated
    narrow = await with_token(demo_client, "prod", new_token(emulated, ("/", "PVEAuditor")))
    answer = await narrow("ListBackups", cluster_name="prod")
    assert answer.data == []
    lines = re.findall(r"run `(.*?)`", answer.notes)
    assert len(lines) == 2
    for line in lines:
        run_line(emulated, line)
    narrow.refresh()
    whole = (await demo_client("ListBackups", cluster_name="prod")).data
    assert (await narrow("ListBackups", cluster_name="prod")).data == whole != []


async def test_privileges_have_the_names_of_the_cluster_s_version(tool_client):
    clusters = (await tool_client("ExplainAccess")).data["clusters"]
    has = {cluster["cluster"]: cluster["has"] for cluster in clusters}
    assert "VM.Monitor on /vms" in has["home-lab"]
    assert "VM.GuestAgent.Audit on /vms" in has["prod"]


async def test_grants_on_some_resources_are_listed(tool_client):
    scoped = tool_client.scoped(Resources(tags=frozenset({"web"}), vmids=frozenset({101})))
    cluster = (await scoped("ExplainAccess", cluster_name="prod")).data["clusters"][0]
    assert cluster["granted"] == [{"resources": {"tags": ["web"], "vmids": [101]}, "tools": "all"}]


async def test_a_dead_cluster_is_explained_beside_the_others(demo_client):
    await demo_client["home-lab"].emulated.node_down("pve")
    clusters = (await demo_client("ExplainAccess")).data["clusters"]
    clusters = {cluster["cluster"]: cluster for cluster in clusters}
    assert clusters["home-lab"]["reachable"] is False
    assert clusters["home-lab"]["reason"]
    assert clusters["prod"]["lacks"] == []


@pytest.mark.parametrize(
    ("tool", "given", "privilege", "path"),
    [
        ("ListVms", {}, "VM.Audit", "/vms"),
        ("ListSnapshots", {}, "VM.Audit", "/vms"),
        ("ListStorage", {}, "Datastore.Audit", "/storage"),
        ("ListPools", {}, "Pool.Audit", "/pool"),
    ],
)
async def test_an_empty_list_names_the_missing_privilege(
    demo_client, new_token, with_token, tool, given, privilege, path
):
    token = new_token(demo_client["prod"].emulated)
    narrow = await with_token(demo_client, "prod", token)
    answer = await narrow(tool, cluster_name="prod", **given)
    assert answer.data == []
    assert f"{token[0]} lacks {privilege} on {path} of prod" in answer.notes
    assert question(token[0], path, [privilege]) in answer.notes


@pytest.mark.parametrize(
    ("table", "privilege"),
    [("guests", "VM.Audit"), ("storages", "Datastore.Audit"), ("backups", "Datastore.Audit"),
     ("pools", "Pool.Audit")],
)  # fmt: skip
async def test_a_query_that_counts_nothing_names_the_missing_privilege(
    demo_client, new_token, with_token, table, privilege
):
    token = new_token(demo_client["prod"].emulated)
    narrow = await with_token(demo_client, "prod", token)
    query = {"from": table, "select": ["COUNT(*) as n"]}
    answer = await narrow("ExecuteQuery", cluster_name="prod", query=query)
    assert answer.data == [{"n": 0}]
    assert f"{token[0]} lacks {privilege} on " in answer.notes


async def test_an_empty_backup_list_names_the_storage_privilege(demo_client, new_token, with_token):
    token = new_token(demo_client["prod"].emulated, ("/vms", "PVEVMAdmin"))
    answer = await (await with_token(demo_client, "prod", token))(
        "ListBackups", cluster_name="prod"
    )
    assert answer.data == []
    assert f"{token[0]} lacks Datastore.Audit on /storage of prod" in answer.notes


async def test_nodes_without_figures_say_which_privilege_would_show_them(
    demo_client, new_token, with_token
):
    token = new_token(demo_client["prod"].emulated, ("/vms", "PVEAuditor"))
    narrow = await with_token(demo_client, "prod", token)
    answer = await narrow("ListNodes", cluster_name="prod")
    assert len(answer.data) == 5
    assert f"{token[0]} lacks Sys.Audit on /nodes of prod" in answer.notes


async def test_a_list_of_only_own_tasks_names_the_missing_privilege(
    demo_client, new_token, with_token
):
    token = new_token(demo_client["prod"].emulated, ("/vms", "PVEVMAdmin"))
    narrow = await with_token(demo_client, "prod", token)
    await narrow("ChangeVmState", cluster_name="prod", vmid=150, action="Reset", wait=True)
    answer = await narrow("ListTasks", cluster_name="prod")
    assert answer.column("type") == ["qmreset"]
    assert f"{token[0]} lacks Sys.Audit on /nodes of prod" in answer.notes


async def test_a_truly_empty_list_has_no_notes(demo_client):
    demo_client["home-lab"].emulated.state.pools.clear()
    answer = await demo_client("ListPools", cluster_name="home-lab")
    assert (answer.data, answer.notes) == ([], "")


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ({"/": {"VM.Audit": True}}, Extent.EVERYWHERE),
        ({"/vms": {"VM.Audit": True}}, Extent.EVERYWHERE),
        ({"/": {"VM.Audit": False}}, Extent.NOWHERE),
        ({"/vms/100": {"VM.Audit": True}}, Extent.PARTLY),
        ({"/pool/web": {"VM.Audit": True}}, Extent.PARTLY),
        ({"/storage": {"VM.Audit": True}}, Extent.NOWHERE),
        ({"/vmsx": {"VM.Audit": True}}, Extent.NOWHERE),
        ({"/vms": {"VM.PowerMgmt": True}}, Extent.NOWHERE),
        ({}, Extent.NOWHERE),
    ],
)
def test_how_far_a_privilege_reaches(held, expected):
    assert extent(needs.GUESTS, held, 9)[0] is expected


def test_every_tool_that_calls_proxmox_declares_its_privileges():
    # what CallApi needs depends on its path; FindApi asks Proxmox nothing
    free = {"ListClusters", "ExplainAccess", "GetQuerySchema", "ExecuteQuery", "FindApi", "CallApi"}
    assert {name for name, tool in tools().items() if not tool.needs} == free


@pytest.mark.parametrize(
    ("tool", "arguments", "path"),
    [
        ("GetVmStatus", {"vmid": 101}, "/vms"),
        ("ChangeVmState", {"vmid": 101, "action": "Stop"}, "/vms"),
        ("ListIsos", {"node": "pve01", "storage": "local"}, "/storage"),
        ("DownloadIso", DOWNLOAD, "/storage"),
        (
            "DeleteIso",
            {"node": "pve01", "storage": "local", "volid": "local:iso/x.iso"},
            "/storage",
        ),
    ],
)
async def test_an_unknown_name_hints_at_missing_privileges(
    demo_client, new_token, with_token, tool, arguments, path
):
    token = new_token(demo_client["prod"].emulated)
    blind = await with_token(demo_client, "prod", token)
    error = await blind.refused(tool, cluster_name="prod", **arguments)
    assert f" on {path}, ExplainAccess says how to add it." in error


async def test_a_backup_without_visible_storages_names_the_privilege(
    demo_client, new_token, with_token
):
    token = new_token(demo_client["prod"].emulated, ("/vms", "PVEVMAdmin"))
    narrow = await with_token(demo_client, "prod", token)
    error = await narrow.refused("BackupVm", cluster_name="prod", vmid=101)
    assert "lacks Datastore.Audit on /storage, ExplainAccess says how to add it" in error


async def test_a_narrow_key_gets_no_hints_on_the_account(demo_client, new_token, with_token):
    blind = await with_token(demo_client, "prod", new_token(demo_client["prod"].emulated))
    scoped = blind.scoped(Resources(vmids=frozenset({105})))
    error = await scoped.refused("GetVmStatus", cluster_name="prod", vmid=101)
    assert error == "No guest 101 on prod."


async def test_an_empty_cluster_status_names_the_missing_privilege(
    demo_client, new_token, with_token
):
    blind = await with_token(demo_client, "prod", new_token(demo_client["prod"].emulated))
    answer = await blind("GetClusterStatus", cluster_name="prod")
    assert (answer.data["vms"]["total"], answer.data["storages"]["total"]) == (0, 0)
    for privilege, path in (("VM.Audit", "/vms"), ("Datastore.Audit", "/storage")):
        assert f"lacks {privilege} on {path} of prod" in answer.notes


async def test_disks_of_guests_are_seen_after_the_line_for_them_was_run(
    demo_client, new_token, with_token, run_line
):
    emulated = demo_client["prod"].emulated
    narrow = await with_token(demo_client, "prod", new_token(emulated, ("/", "PVEAuditor")))
    place = {"cluster_name": "prod", "node": "pve01", "storage": "ceph-vm"}
    answer = await narrow("ListStorageContent", **place)
    assert answer.data == []
    [line] = re.findall(r"run `(.*?)`", answer.notes)
    run_line(emulated, line)
    narrow.refresh()
    whole = (await demo_client("ListStorageContent", **place)).data
    assert (await narrow("ListStorageContent", **place)).data == whole != []


@pytest.mark.parametrize("cluster", ["home-lab", "prod"])
async def test_a_read_only_key_is_advised_no_more_than_its_reads_need(
    demo_client, new_token, with_token, cluster
):
    emulated = demo_client[cluster].emulated
    narrow = await with_token(demo_client, cluster, new_token(emulated, SEES_ACL))
    narrow.tools = frozenset({READS})
    access = (await narrow("ExplainAccess", cluster_name=cluster)).data["clusters"][0]
    privileges = {missing["privilege"] for missing in access["lacks"]}
    # listing backups and disks takes these; Proxmox has no smaller ones for it
    listing = {"VM.Backup", "VM.Config.Disk", "Datastore.AllocateSpace"}
    agent = {"VM.Monitor"} if cluster == "home-lab" else set()
    others = {name for name in privileges if not name.endswith(".Audit")}
    assert others == listing | agent | {"Sys.Syslog"}
    for missing in access["lacks"]:
        role = missing["fix"].rpartition("--roles ")[2]
        known = builtin_roles(emulated.state.release).get(role, {missing["privilege"]})
        assert all(name.endswith(".Audit") for name in known - {missing["privilege"]}), role


@pytest.mark.parametrize("tool", ["ListVms", "GetClusterStatus"])
async def test_an_empty_answer_names_the_paths_that_an_account_sees(
    demo_client, with_token, new_token, tool
):
    emulated = demo_client["prod"].emulated
    emulated.state.pools["spare"] = Pool("spare")
    token = new_token(emulated, ("/pool/spare", "PVEAuditor"))
    client = await with_token(demo_client, "prod", token)
    answer = await client(tool, cluster_name="prod")
    seen = f"{token[0]} has VM.Audit on /pool/spare of prod only"
    assert seen in answer.notes
    narrow = await client.scoped(Resources(vmids=frozenset({101})))(tool, cluster_name="prod")
    assert "/pool/spare" not in narrow.notes
