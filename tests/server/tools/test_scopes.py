"""A role for some resources sees and changes only those, with every tool."""

import json
import re

import pytest

from pvemcp_server.access.model import Resources
from pvemcp_server.toolkit.registry import tools

from .examples import PROD as PLACE
from .examples import examples

pytestmark = pytest.mark.anyio

PROD = {"cluster_name": "prod"}
ONE_GUEST = Resources(vmids=frozenset({105}))

# Calls about a guest or a node that ONE_GUEST does not cover; lists filter instead of refusing
OUTSIDE = {
    name: arguments
    for name, arguments in examples(PLACE).items()
    if {"vmid", "vmids", "node"} & arguments.keys() and name != "ListBackups"
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
    ("BackupVm", {"vmid": 105}, {"storage": ("pbs-main", "nothing")}),
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
    place = {"node", "target_node", "storage", "target_storage"}
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
