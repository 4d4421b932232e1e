"""No write gives its caller more rights on a guest: by tags, a pool, a node or a VMID."""

from dataclasses import replace

import pytest

from proxmox_client.emulator import ManualClock, demo
from proxmox_client.emulator.state.storage import Volume
from pvemcp_server.access.model import Grant, Resources

pytestmark = pytest.mark.anyio

VMID = 140  # stopped, with a snapshot
PROD = {"cluster_name": "prod"}
PLACE = {**PROD, "vmid": VMID}
VOLID = f"local:backup/vzdump-qemu-{VMID}-2026_01_01-00_00_00.zst"
WRITES = {
    "UpdateVmConfig": {},
    "RestoreBackup": {"backup": VOLID, "overwrite": True},
    "RollbackVmSnapshot": {"snapshot_name": "pre-patch-09"},
}
ROLE = Resources(
    vmids=frozenset({VMID}), tags=frozenset({"team"}), storages=frozenset({"local", "local-zfs"})
)


@pytest.fixture(scope="module")
async def client(anyio_backend, open_client):
    async with open_client(demo(), ManualClock()) as opened:
        yield opened


def has_tags(client, tags, before="x"):
    """Give the guest tags, and a snapshot and a backup others."""
    state = client["prod"].emulated.state
    guest = state.guests[VMID]
    guest.config["tags"] = before
    guest.snapshots["pre-patch-09"].config["tags"] = tags
    config = f"scsi0: local-zfs:vm-140-disk-0,size=1G\ntags: {tags}\n"
    backup = Volume(VOLID, "backup", "vma.zst", 1, 1, VMID, subtype="qemu", config=config)
    state.storages["local"].put("pve01", backup)
    guest.touch()
    client.refresh()


@pytest.mark.parametrize("tool", WRITES)
@pytest.mark.parametrize(
    ("before", "after", "refused"),
    [
        ("x", "x;Team", "team"),
        ("x;team", "x", "team"),
        ("x", "protected", "protected"),
        ("x;team", "team;y", ""),
    ],
)
async def test_a_key_changes_no_tag_that_decides_about_its_rights(
    client, tool, before, after, refused
):
    has_tags(client, after, before)
    own = {"tags": after.split(";")} if tool == "UpdateVmConfig" else {}
    answer = await client.scoped(ROLE)(tool, **PLACE, **WRITES[tool], **own, dry_run=True)
    expected = f"would add or remove the tag {refused} of qemu 140" if refused else ""
    assert (answer.failed, expected in answer.text) == (bool(refused), True), answer.text


OTHER = 777  # a free VMID
NEW = {
    "CreateVm": {"node": "pve01", "storage": "local-zfs", "name": "a", "new_vmid": OTHER},
    "CreateContainer": {
        "node": "pve01",
        "storage": "local-zfs",
        "name": "a",
        "new_vmid": OTHER,
        "template": "local:vztmpl/debian-13-standard_13.1-2_amd64.tar.zst",
    },
    "CloneVm": {"source": str(VMID), "name": "a", "new_vmid": OTHER, "storage": "local-zfs"},
    "RestoreBackup": {"backup": VOLID, "vmid": OTHER},
}
EXEC = frozenset({"ExecInGuest"})
EVERYTHING = Resources(everything=True)
INSIDE = Resources(
    vmids=frozenset({VMID, OTHER}),
    storages=frozenset({"local", "local-zfs"}),
    target_nodes=frozenset({"pve01"}),
)


def marked(**marks):
    return Resources(**{name: frozenset({value}) for name, value in marks.items()})


# own grant of the writes, the other grant, tags of the new guest, whether it has a pool, refusal
OF_NEW = [
    (EVERYTHING, marked(tags="lab"), "Lab", False, "tag Lab of the new guest would decide"),
    (INSIDE, marked(tags="lab"), "lab", False, "tag lab of the new guest would decide"),
    (replace(INSIDE, tags=frozenset({"lab"})), marked(tags="lab"), "lab", False, ""),
    (EVERYTHING, marked(pools="office"), "x", True, "pool office of the new guest would decide"),
    (
        replace(INSIDE, pools=frozenset({"office"})),
        marked(pools="office"),
        "x",
        True,
        "",
    ),
    (EVERYTHING, marked(vmids=OTHER), "x", False, f"VMID {OTHER} of the new guest would decide"),
    (INSIDE, marked(vmids=OTHER), "x", False, ""),
    (EVERYTHING, marked(nodes="pve01"), "x", False, "node pve01 of the new guest would decide"),
    (INSIDE, marked(nodes="pve01"), "x", False, ""),
    (EVERYTHING, marked(tags="y"), "x", False, ""),
    (EVERYTHING, EVERYTHING, "lab", False, ""),
    (EVERYTHING, None, "Protected", False, "With the tag Protected, the guest would be protected"),
]


@pytest.mark.parametrize("tool", NEW)
async def test_a_new_guest_comes_under_no_grant_but_that_of_the_write(client, tool):
    for own, other, tags, has_pool, refusal in OF_NEW:
        has_tags(client, tags)
        given = {} if tool == "RestoreBackup" else {"tags": [tags]}
        pool = {"pool": "office"} if has_pool else {}
        grants = (Grant(EXEC, resources=other),) if other else ()
        key = replace(client, tools=frozenset(NEW), resources=own, more_grants=grants)
        answer = await key(tool, **PROD, **NEW[tool], **given, **pool, dry_run=True)
        case = (own, other, tags, answer.text)
        assert answer.failed == bool(refusal), case
        assert refusal in answer.text, case


@pytest.mark.parametrize(
    ("born", "refusal"),
    [
        ("Lab;x", "tag Lab of the new guest, until its tags are set, would decide"),
        ("Protected", "With the tag Protected, the guest would be protected"),
        ("x", ""),
    ],
)
async def test_a_clone_has_no_deciding_tag_until_its_own_are_set_either(client, born, refusal):
    # a call that is cancelled between the two steps leaves it with the tags of its source
    has_tags(client, "x", before="x")
    client["prod"].emulated.state.guests[VMID].snapshots["pre-patch-09"].config["tags"] = born
    grants = (Grant(EXEC, resources=marked(tags="lab")),)
    key = replace(client, tools=frozenset({"CloneVm"}), resources=INSIDE, more_grants=grants)
    call = {**PROD, **NEW["CloneVm"], "snapshot_name": "pre-patch-09", "tags": ["plain"]}
    answer = await key("CloneVm", **call, dry_run=True)
    assert (answer.failed, refusal in answer.text) == (bool(refusal), True), answer.text


async def test_a_grant_that_gives_as_much_lets_the_new_guest_have_the_tag(client):
    grants = (Grant(EXEC, resources=marked(tags="lab")),)
    create = frozenset({"CreateVm"})
    for tools, refused in ((create, True), (create | EXEC, False)):
        key = replace(
            client, tools=tools, programs=frozenset(), more_grants=grants, resources=EVERYTHING
        )
        answer = await key("CreateVm", **PROD, **NEW["CreateVm"], tags=["lab"], dry_run=True)
        assert answer.failed == refused, answer.text


@pytest.mark.parametrize("tool", ["MigrateVm", "EvacuateNode"])
async def test_a_move_brings_a_guest_under_no_other_grant(client, tool):
    moved = {"node": "pve01"}
    if tool == "MigrateVm":
        moved = {"vmid": VMID, "target_node": "pve02", "online": True}
    nodes = Resources(nodes=frozenset({"pve02", "pve03"}))
    for own, refused in ((EVERYTHING, True), (replace(INSIDE, target_nodes={"*"}), False)):
        key = replace(
            client,
            tools=frozenset({tool}),
            resources=own,
            more_grants=(Grant(EXEC, resources=nodes),),
        )
        answer = await key(tool, **PROD, **moved, dry_run=True)
        said = "would decide what this key may do with it" in answer.text
        assert said == refused, answer.text


async def test_no_request_of_call_api_protects_a_guest(client):
    call = {"method": "PUT", "path": f"/nodes/pve01/qemu/{VMID}/config"}
    answer = await client("CallApi", **PROD, **call, parameters=["tags=x;protected"], dry_run=True)
    assert "With the tag protected, the guest would be protected" in answer.text


async def test_the_vmid_that_takes_the_place_of_a_taken_one_is_checked_too(client, monkeypatch):
    cluster = client["prod"].pve.cluster
    real, answers = cluster.nextid, [101, 101]  # which is taken, and its check passes

    async def nextid(vmid=None):
        return answers.pop(0) if answers else await real(vmid)

    monkeypatch.setattr(cluster, "nextid", nextid)
    following = await real()
    grants = (Grant(EXEC, resources=marked(vmids=following)),)
    create = frozenset({"CreateVm"})
    key = replace(client, tools=create, resources=EVERYTHING, more_grants=grants)
    call = {**NEW["CreateVm"], "new_vmid": None}
    error = await key.refused("CreateVm", **PROD, **call)
    assert f"VMID {following} of the new guest would decide" in error
    assert following not in client["prod"].emulated.state.guests
