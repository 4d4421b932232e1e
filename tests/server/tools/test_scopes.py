"""A role for some resources sees and changes only those, with every tool."""

import json
import re

import pytest

from proxmox_client.emulator import ManualClock
from proxmox_client.emulator.state.guest import Snapshot
from proxmox_client.emulator.state.jobs import HaResource
from proxmox_client.emulator.state.storage import Volume
from pvemcp_server.access.model import Resources
from pvemcp_server.toolkit.registry import tools
from pvemcp_server.tools.attention.model import Topic

from .altered import altered
from .examples import PROD as PLACE
from .examples import examples
from .few_guests import few_guests

pytestmark = pytest.mark.anyio

PROD = {"cluster_name": "prod"}
ONE_GUEST = Resources(vmids=frozenset({105}))

# Calls about a guest or a node that ONE_GUEST does not cover; lists filter instead of refusing
OUTSIDE = {
    name: arguments
    for name, arguments in examples(PLACE).items()
    if {"vmid", "vmids", "node", "source"} & arguments.keys() and name != "ListBackups"
} | {
    "ListSnapshots": {**PROD, "vmids": [101]},
    "ListNodeRrdData": {**PROD, "nodes": ["pve01"]},
    "ListNodeDisks": {**PROD, "node": "pve01"},
}


@pytest.mark.parametrize("tool", OUTSIDE)
async def test_things_not_granted_are_answered_like_unknown_ones(demo_client, tool):
    scoped = demo_client.scoped(ONE_GUEST)
    error = await scoped.refused(tool, **OUTSIDE[tool])
    assert error.startswith("No "), error
    assert "db-primary" not in error
    assert not any(one.startswith(("POST", "DELETE")) for one in demo_client.requests("prod"))


LISTS = {
    name: {} if name == "ListClusters" else PROD
    for name, tool in tools().items()
    if tool.lists and tool.input_schema.get("required", []) == []
} | {"ListVmRrdData": {**PROD, "vmids": [105]}, "GetLog": {**PROD, "vmid": 105}}


@pytest.mark.parametrize("tool", LISTS)
async def test_lists_show_nothing_of_other_guests(tool_client, tool):
    answer = await tool_client.scoped(ONE_GUEST)(tool, **LISTS[tool])
    assert not answer.failed, answer.text
    everybody = tool_client["prod"].emulated.state.guests
    others = {guest.name for vmid, guest in everybody.items() if vmid != 105}
    shown = {str(value) for row in answer.data for value in row.values()}
    assert not others & shown
    assert not any(name in answer.notes for name in others)
    vmids = {row["vmid"] for row in answer.data if row.get("vmid") is not None}
    assert vmids <= {105}


async def test_the_health_of_a_cluster_counts_what_is_granted(tool_client):
    found = (await tool_client.scoped(ONE_GUEST)("GetClusterStatus", **PROD)).data
    assert (found["vms"]["total"], found["containers"]["total"]) == (1, 0)
    assert found["nodes_total"] == 0


async def test_a_role_for_a_tag_sees_its_guests(tool_client):
    state = tool_client["prod"].emulated.state
    answer = await tool_client.scoped(Resources(tags=frozenset({"staging"})))("ListVms", **PROD)
    tagged = [
        one
        for one in state.guests.values()
        if "staging" in str(one.config.get("tags", "")).split(";")
    ]
    # of guests on a node that is offline Proxmox forgets the tags
    online = {one.vmid for one in tagged if state.nodes[one.node].online}
    assert online
    assert online <= set(answer.column("vmid")) <= {one.vmid for one in tagged}


# Arguments of each write that name a place: one that exists and is hidden, one that does not exist
PLACES = [
    ("MigrateVm", {"vmid": 105, "online": True}, {"target_node": ("pve02", "pve77")}),
    ("EvacuateNode", {}, {"node": ("pve02", "pve77")}),
    *(
        ("CloneVm", {"source": "105", "name": "copy"}, {place: names})
        for place, names in (
            ("target_node", ("pve02", "pve77")),
            ("storage", ("ceph-vm", "nothing")),
            ("pool", ("office", "nothing")),
            ("source", ("db-primary", "nothing")),
        )
    ),
    *(
        (name, {**examples(PLACE)[name], **given}, {place: names})
        for name in ("CreateVm", "CreateContainer")
        for place, given, names in (
            ("node", {}, ("pve01", "pve77")),
            ("storage", {}, ("ceph-vm", "nothing")),
            ("pool", {}, ("office", "nothing")),
        )
    ),
    ("BackupVm", {"vmid": 105}, {"storage": ("pbs-main", "nothing")}),
    ("RestoreBackup", {"backup": "105"}, {"node": ("pve01", "pve77")}),
    ("MoveVmDisk", {"vmid": 105, "disk": "scsi0"}, {"target_storage": ("local-zfs", "nothing")}),
    ("DownloadIso", examples(PLACE)["DownloadIso"], {"node": ("pve01", "pve77")}),
    ("DownloadIso", examples(PLACE)["DownloadIso"], {"storage": ("nfs-iso", "nothing")}),
    *(
        (name, {"node": "pve01", "storage": storage}, {"volid": volids, "storage": storages})
        for name in ("DeleteBackup", "DeleteIso", "DeleteStorageContent")
        for storage, volids, storages in (
            ("local", ("local:iso/a.iso", "local:iso/a.iso"), ("local", "local")),
            ("", ("local:iso/a.iso", "nothing:iso/a.iso"), ("local", "nothing")),
        )
    ),
    *(
        (
            name,
            {"storage": "local", "volid": "local:iso/a.iso"},
            {"node": ("pve01", "pve77")},
        )
        for name in ("DeleteBackup", "DeleteIso", "DeleteStorageContent")
    ),
]


@pytest.mark.parametrize(("tool", "arguments", "places"), PLACES)
async def test_a_write_answers_hidden_places_like_absent_ones(demo_client, tool, arguments, places):
    scoped = demo_client.scoped(ONE_GUEST)
    emulated = demo_client["prod"].emulated.state
    answers = []
    for which in (0, 1):
        named = {name: pair[which] for name, pair in places.items()}
        error = await scoped.refused(tool, **{**PROD, **arguments, **named})
        for value in named.values():
            error = error.replace(value, "…")
        answers.append(error)
    assert answers[0] == answers[1]
    own = emulated.guests[105].node
    names = {*emulated.nodes, *emulated.storages} - {own, arguments.get("storage", "")}
    assert not [name for name in names if name in answers[0]]
    assert not any(one.startswith(("POST", "DELETE")) for one in demo_client.requests("prod"))


def test_every_write_that_names_a_place_is_covered():
    place = {"node", "target_node", "storage", "target_storage", "pool"}
    writes = {name for name, tool in tools().items() if not tool.reads}
    naming = {n for n in writes if place & tools()[n].input_schema["properties"].keys()}
    assert naming == {name for name, *_ in PLACES}


async def test_a_target_storage_of_a_migration_has_to_be_granted(demo_client):
    resources = Resources(vmids=frozenset({105}), target_nodes=frozenset({"pve02"}))
    move = {**PROD, "vmid": 105, "target_node": "pve02", "online": True, "dry_run": True}
    scoped = demo_client.scoped(resources)
    assert (await scoped("MigrateVm", **move)).data["dry_run"]
    hidden = await scoped.refused("MigrateVm", **move, target_storage="ceph-vm")
    absent = await scoped.refused("MigrateVm", **move, target_storage="nothing")
    assert hidden.replace("ceph-vm", "…") == absent.replace("nothing", "…")
    wider = demo_client.scoped(resources | Resources(target_storages=frozenset({"ceph-vm"})))
    assert (await wider("MigrateVm", **move, target_storage="ceph-vm")).data["dry_run"]


@pytest.mark.parametrize(
    ("granted", "fills"),
    [
        (Resources(), False),
        (Resources(target_storages=frozenset({"ceph-vm"})), False),
        (Resources(target_storages=frozenset({"local-zfs"})), True),
        (Resources(storages=frozenset({"local-zfs"})), True),
        (Resources(nodes=frozenset({"pve02"})), True),
    ],
)
async def test_a_migration_copies_disks_to_granted_storages_only(demo_client, granted, fills):
    state = demo_client["prod"].emulated.state
    vmid = next(
        guest.vmid
        for guest in state.guests.values()
        if guest.node == "pve03" and str(guest.config.get("scsi0", "")).startswith("local-zfs:")
    )
    moved = Resources(vmids=frozenset({vmid}), target_nodes=frozenset({"pve02"}))
    call = {**PROD, "vmid": vmid, "target_node": "pve02", "online": True, "dry_run": True}
    answer = await demo_client.scoped(moved | granted)("MigrateVm", **call)
    assert answer.failed is not fills
    expected = "Local disks are copied" if fills else "No storage 'local-zfs' on pve02 of prod."
    assert expected in answer.text


@pytest.mark.parametrize(
    "granted",
    [
        Resources(storages=frozenset({"pbs-main"})),
        Resources(nodes=frozenset({"pve01"})),
        Resources(target_storages=frozenset({"pbs-main"})),
        Resources(target_storages=frozenset({"*"})),
    ],
)
async def test_a_backup_fills_granted_storages_only(demo_client, granted):
    call = {**PROD, "vmid": 105, "storage": "pbs-main", "dry_run": True}
    pool = Resources(pools=frozenset({"production"}))
    error = await demo_client.scoped(pool).refused("BackupVm", **call)
    assert error.startswith("No storage 'pbs-main' on pve01 of prod. Writes may use the nodes")
    unnamed = {name: value for name, value in call.items() if name != "storage"}
    assert "No storage 'local'" in await demo_client.scoped(pool).refused("BackupVm", **unnamed)
    answer = await demo_client.scoped(pool | granted)("BackupVm", **call)
    assert answer.data["storage"] == "pbs-main"


async def test_targets_show_nothing(tool_client):
    targets = Resources(target_nodes=frozenset({"*"}), target_storages=frozenset({"*"}))
    assert not targets
    scoped = tool_client.scoped(ONE_GUEST | targets)
    assert (await scoped("ListNodes", **PROD)).data == []
    assert (await scoped("ListStorage", **PROD)).data == []


async def test_a_role_for_one_node_migrates_only_to_that_node(demo_client):
    scoped = demo_client.scoped(Resources(vmids=frozenset({105}), nodes=frozenset({"pve02"})))
    call = {**PROD, "vmid": 105, "online": True, "dry_run": True}
    assert (await scoped("MigrateVm", **call, target_node="pve02")).data["dry_run"]
    error = await scoped.refused("MigrateVm", **call, target_node="pve03")
    assert error.startswith("No node 'pve03' on prod.")


SINGLE = {
    name: PROD
    for name, tool in tools().items()
    if tool.reads and not tool.lists and not {"vmid", "node"} & set(tool.input_schema["properties"])
} | {"GetVmConfig": {**PROD, "vmid": 105}, "GetVmStatus": {**PROD, "vmid": 105}}
SINGLE["GetQuerySchema"] = {}


@pytest.mark.parametrize("name", SINGLE)
async def test_single_answers_say_nothing_about_the_rest_of_the_cluster(
    demo_client, new_token, with_token, name
):
    state = demo_client["prod"].emulated.state
    state.options |= {
        "description": "hidden-notes",
        "migration": "secure,network=10.30.0.0/24",
        "http_proxy": "http://hidden-proxy.example.test:3128",
        "email_from": "hidden-sender@example.test",
        "tag-style": "color-map=hidden-tag:ff0000",
        "ha": "shutdown_policy=hidden-policy",
        "keyboard": "de",
    }
    state.guests[104].config["tags"] = "hidden-tag"
    paths = ("/storage/pbs-main", "/nodes/pve02", "/vms/104", "/vms/105", "/pool/production")
    token = new_token(
        demo_client["prod"].emulated,
        ("/", "PVEAuditor"),
        *((path, "PVEAdmin") for path in paths),
    )
    scoped = (await with_token(demo_client, "prod", token)).scoped(ONE_GUEST)
    answer = await scoped(name, **SINGLE[name])
    own = state.guests.pop(105)
    hidden = {*state.nodes, *state.storages, "hidden-", "10.30.0.0", "/vms/104", "production"}
    hidden |= {guest.name for guest in state.guests.values() if "-" in guest.name}
    known = json.dumps([own.node, own.config])
    text = answer.text + answer.notes
    assert [each for each in hidden if each in text and each not in known] == []


async def test_errors_never_name_hidden_things(tool_client):
    scoped = tool_client.scoped(ONE_GUEST)
    error = await scoped.refused("GetVmConfig", **PROD, vmid=104)
    assert error == "No guest 104 on prod. Did you mean 105?"
    error = await scoped.refused("GetNodeStatus", **PROD, node="pve0")
    assert error == "No node 'pve0' on prod."


async def test_explain_access_has_the_scope_and_nothing_else(tool_client):
    answer = await tool_client.scoped(ONE_GUEST)("ExplainAccess", **PROD)
    assert answer.data["clusters"][0]["granted"][0]["resources"] == {"vmids": [105]}
    assert "db-primary" not in json.dumps(answer.data)


@pytest.mark.parametrize("path", ["/cluster/resources", "/nodes/"])
async def test_no_note_counts_what_is_hidden(demo_client, path):
    demo_client["prod"].emulated.fault("malformed", path=path, shape="null-row")
    scoped = demo_client.scoped(ONE_GUEST)
    notes = [(await scoped(name, **PROD)).notes for name in ("ListVms", "ListBackups")]
    assert any("Malformed on prod, so missing here: some rows" in each for each in notes)
    assert not [each for each in notes if re.search(r"\d+ (rows?|more)", each)]


ROLES = {
    "guest": ONE_GUEST,
    "tag": Resources(tags=frozenset({"staging"})),
}
# without ListClusters, which has the time of its call
SAME = [
    *(
        (name, {**arguments, **({"vmid": 105} if "vmid" in arguments else {})})
        for name, arguments in examples(PLACE).items()
        if tools()[name].reads and name not in ("ListClusters", "CallApi", "FindApi")
    ),
    *((name, PROD) for name in ("ListBackups", "ListStorageContent") if name in LISTS),
    ("GetAttention", {**PROD, "areas": list(Topic)}),
]


def change_what_is_hidden(state, scope):
    """Let all go wrong with guests and nodes that the scope does not cover."""
    now = int(state.now)
    for guest in state.guests.values():
        tags = str(guest.config.get("tags", "")).split(";")
        if not scope.covers_guest(guest.vmid, pool=state.pool_of(guest.vmid), tags=tags):
            guest.config["name" if "name" in guest.config else "hostname"] = f"new-{guest.vmid}"
            guest.snapshots["old"] = Snapshot("old", now - 400 * 86_400, state="prepare")
            sid = f"{guest.kind.word.lower()}:{guest.vmid}"
            state.ha_resources[sid] = HaResource(sid, comment="new")
            guest.row = None
    for node in state.nodes.values():
        node.updates, node.newest_kernel = [], "9.9.9-new"
        for disk in node.disks:
            disk.health = "FAILED"
        state.add_task(node.name, "vzdump", "", "new@pam", now - 100).finish("new", now - 50)
        by_a_job = state.add_task(node.name, "vzdump", "", "root@pam", now - 100)
        by_a_job.log.append("TASK ERROR: could not activate: storage 'new' is not online")
        by_a_job.finish("new", now - 50)
    for storage in state.storages.values():
        storage.total = max(map(storage.used, state.nodes)) or 1


@pytest.mark.parametrize("scope", ROLES.values(), ids=ROLES)
async def test_what_is_hidden_changes_no_answer(open_client, scope):
    async with open_client(few_guests(), ManualClock()) as client:
        scoped = client.scoped(scope)
        before = [await scoped(name, **arguments) for name, arguments in SAME]
        change_what_is_hidden(client["prod"].emulated.state, scope)
        client.refresh()
        after = [await scoped(name, **arguments) for name, arguments in SAME]
    assert [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]] == []


@pytest.mark.parametrize("node", ["pve02", "pve05", "pve77"])
@pytest.mark.parametrize("tool", ["GetTask", "GetLog"])
async def test_a_made_up_task_shows_nothing_of_its_node(demo_client, tool, node):
    assert not demo_client["prod"].emulated.state.nodes["pve05"].online
    upid = f"UPID:{node}:00001000:00001000:6B02AC99:vzdump:105:root@pam:"
    error = await demo_client.scoped(ONE_GUEST).refused(tool, **PROD, upid=upid)
    assert error == f"No task '{upid}' on prod."


@pytest.mark.parametrize("tool", ["GetTask", "GetLog"])
async def test_a_made_up_task_shows_nothing_of_a_node_that_fails(demo_client, tool):
    upid = "UPID:pve02:00001000:00001000:6B02AC99:vzdump:105:root@pam:"
    demo_client["prod"].emulated.fault("error", path="/nodes/pve02/", message="stuck")
    assert "stuck" in await demo_client.refused(tool, **PROD, upid=upid)
    error = await demo_client.scoped(ONE_GUEST).refused(tool, **PROD, upid=upid)
    assert error == f"No task '{upid}' on prod."


# Tables that may have rows of a visible guest on any node or storage
ANYWHERE = {
    ("node", "pve05", "pve77"): ("tasks", "changes", "backups", "storage_content"),
    ("storage", "nfs-iso", "nowhere"): ("storage_content",),
    ("storage", "nfs-archive", "nowhere"): ("backups", "storage_content"),
}


@pytest.mark.parametrize("place", ANYWHERE, ids="-".join)
async def test_a_place_named_in_a_query_is_answered_like_an_absent_one(
    demo_client, new_token, with_token, place
):
    emulated = demo_client["prod"].emulated
    emulated.fail_storage("nfs-iso", nodes=list(emulated.state.nodes))
    emulated.fail_storage("nfs-archive", nodes=list(emulated.state.nodes))
    assert not emulated.state.nodes["pve05"].online
    poor = await with_token(demo_client, "prod", new_token(emulated, ("/", "PVEAuditor")))
    field, *names = place
    for scoped in (demo_client.scoped(ONE_GUEST), poor.scoped(ONE_GUEST)):
        for table in ANYWHERE[place]:
            answers = []
            for name in names:
                where = {"field": field, "operator": "=", "value": name}
                query = {"from": table, "select": [field], "where": where}
                answer = await scoped("ExecuteQuery", **PROD, query=query)
                answers.append((answer.text, answer.notes.replace(name, "…")))
            assert answers[0] == answers[1], table


@pytest.mark.parametrize("table", ["storage_content", "backup_coverage"])
async def test_no_note_on_privileges_names_a_hidden_storage(
    demo_client, new_token, with_token, table
):
    token = new_token(demo_client["prod"].emulated, ("/", "PVEAuditor"))
    poor = await with_token(demo_client, "prod", token)
    names = demo_client["prod"].emulated.state.storages
    query = {"from": table, "select": ["COUNT(*) as n"] if table != "backup_coverage" else "*"}
    notes = (await poor("ExecuteQuery", **PROD, query=query)).notes
    assert "lists no backups on local, nfs-archive, pbs-main" in notes
    notes = (await poor.scoped(ONE_GUEST)("ExecuteQuery", **PROD, query=query)).notes
    assert "lists no backups on some storages" in notes
    assert not [name for name in names if f" {name}" in notes]


async def test_hidden_tasks_change_no_note(demo_client):
    state = demo_client["prod"].emulated.state
    scoped = demo_client.scoped(Resources(nodes=frozenset({"pve02"})))
    call = {**PROD, "vmid": 101, "type": "qmtemplate"}
    before = await scoped("ListTasks", **call)
    now = int(state.now)
    state.add_task("pve01", "qmtemplate", "101", "root@pam", now - 100).finish("OK", now - 50)
    assert await scoped("ListTasks", **call) == before
    assert (await demo_client("ListTasks", **call)).data


async def test_a_deletion_does_not_name_the_protected_tag_of_a_hidden_guest(demo_client):
    state = demo_client["prod"].emulated.state
    volid = "ceph-vm:vm-101-disk-9"
    state.storages["ceph-vm"].put("pve01", Volume(volid, "images", "raw", 1, 1, 101))
    state.guests[101].config["tags"] = "crown-jewel"
    state.guests[101].touch()
    demo_client.change(protected_tags=["crown-jewel"])
    place = {**PROD, "node": "pve01", "storage": "ceph-vm", "volid": volid}
    assert "its tag crown-jewel" in await demo_client.refused("DeleteStorageContent", **place)
    scoped = demo_client.scoped(Resources(storages=frozenset({"ceph-vm"})))
    error = await scoped.refused("DeleteStorageContent", **place)
    assert error == "Guest 101, which it belongs to, is protected."


async def test_a_stopped_task_does_not_name_the_protected_tag_of_a_hidden_guest(demo_client):
    state = demo_client["prod"].emulated.state
    task = state.add_task("pve01", "vzdump", "101", "root@pam", int(state.now) - 10)
    state.guests[101].config["tags"] = "crown-jewel"
    state.guests[101].touch()
    demo_client.change(protected_tags=["crown-jewel"])
    stop = {**PROD, "upid": task.upid, "dry_run": True}
    assert "its tag crown-jewel" in await demo_client.refused("StopTask", **stop)
    scoped = demo_client.scoped(Resources(vmids=frozenset({105}), nodes=frozenset({"pve03"})))
    assert (await scoped.refused("StopTask", **stop)).startswith("No task")
    state.guests[101].node = "pve03"
    state.guests[101].touch()
    scoped = demo_client.scoped(Resources(nodes=frozenset({"pve01"})))
    demo_client.refresh()
    error = await scoped.refused("StopTask", **stop)
    assert error == "Guest 101, which the task is about, is protected."


async def test_a_deletion_shows_nothing_of_a_hidden_owner(demo_client):
    state = demo_client["prod"].emulated.state
    owner = next(g for g in state.guests.values() if not state.nodes[g.node].online)
    volid = f"ceph-vm:vm-{owner.vmid}-disk-9"
    place = {**PROD, "node": "pve01", "storage": "ceph-vm", "volid": volid}
    state.storages["ceph-vm"].put("pve01", Volume(volid, "images", "raw", 1, 1, owner.vmid))
    scoped = demo_client.scoped(Resources(storages=frozenset({"ceph-vm"})))
    error = await scoped.refused("DeleteStorageContent", **place)
    assert error.endswith("unknown: the guest that it belongs to cannot be read and is hidden.")


async def test_a_deletion_counts_no_hidden_guests(demo_client):
    state = demo_client["prod"].emulated.state
    state.storages["nfs-iso"].put("pve01", Volume("nfs-iso:iso/a.iso", "iso", "raw", 1, 1))
    place = {**PROD, "node": "pve01", "storage": "nfs-iso", "volid": "nfs-iso:iso/a.iso"}
    scoped = demo_client.scoped(Resources(storages=frozenset({"nfs-iso"})))
    would = (await scoped("DeleteIso", **place, dry_run=True)).data["would"]
    assert "Some guests could not be checked for using nfs-iso:iso/a.iso." in would
    would = (await demo_client("DeleteIso", **place, dry_run=True)).data["would"]
    assert re.search(r"\d+ guests could not be checked", would)


async def test_a_refused_migration_names_no_hidden_guest(demo_client):
    reasons = {"blocking-ha-resources": [{"sid": "vm:104", "cause": "resource-affinity"}]}

    def refused(response):
        check = {"running": 1, "allowed_nodes": ["pve03"], "not_allowed_nodes": {"pve02": reasons}}
        return response._replace(body=json.dumps({"data": check}).encode())

    scoped = demo_client.scoped(ONE_GUEST | Resources(target_nodes=frozenset({"pve02"})))
    move = {**PROD, "vmid": 105, "target_node": "pve02", "online": True}
    with altered(demo_client["prod"], "/nodes/pve01/qemu/105/migrate", refused):
        error = await scoped.refused("MigrateVm", **move)
        assert error.endswith("on pve02: blocking ha resources.")
        assert "vm:104" in await demo_client.refused("MigrateVm", **move)


@pytest.mark.parametrize("own", [{"nodes": {"pve02"}}, {"storages": {"ceph-vm"}}])
async def test_a_part_of_a_cluster_has_only_the_state_of_ceph(tool_client, own):
    scope = Resources(**{name: frozenset(names) for name, names in own.items()})
    answer = await tool_client.scoped(scope)("GetClusterStatus", **PROD)
    assert answer.data["ceph"] == {"status": "HEALTH_WARN"}
