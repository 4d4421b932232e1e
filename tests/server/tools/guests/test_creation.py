"""CreateVm and CreateContainer."""

import asyncio
from dataclasses import replace

import pytest
from tests.server.tools.tool_client import offered

from proxmox_client.emulator import demo
from proxmox_client.emulator.state.storage import Volume
from pvemcp_server.access.model import Resources
from pvemcp_server.toolkit.plan import Plan

pytestmark = pytest.mark.anyio

PLACE = {"cluster_name": "prod", "node": "pve01", "storage": "ceph-vm"}
VM = {**PLACE, "name": "new-vm"}
TEMPLATE = "local:vztmpl/debian-13-standard_13.1-2_amd64.tar.zst"
CT = {**PLACE, "name": "new-ct", "template": TEMPLATE}
ISO = "nfs-iso:iso/debian-12.11.0-amd64-netinst.iso"
IMAGE = "local:import/debian-13.qcow2"
KEY = "ssh-ed25519 AAAAC3Nz joe@x"
SECRET = "Tr0ub4dor-and-3"


@pytest.fixture(scope="module")
async def module_client(anyio_backend, open_client):
    async with open_client(demo()) as opened:
        storage = opened["prod"].emulated.state.storages["local"]
        storage.content += ("import",)
        storage.put("pve01", Volume(IMAGE, "import", "qcow2", 3 << 30, 0))
        yield opened


@pytest.fixture
def client(module_client):
    """Return a client with an audit of its own, on clusters that the module shares."""
    module_client.requests("prod")
    return replace(module_client, audit=type(module_client.audit)())


def sent(client):
    return [request for request in client.requests("prod") if not request.startswith("GET")]


def guest_of(client, answer):
    return client["prod"].emulated.state.guests[answer.data["vmid"]]


async def test_an_empty_vm_is_created_with_a_disk_and_a_network(client):
    answer = await client("CreateVm", **VM, disk_size=8, vlan=7, pool="office", wait=True)
    config = guest_of(client, answer).config
    assert (answer.data["ok"], answer.data["guest_status"]) == (True, "stopped")
    assert config["scsi0"].endswith("size=8G")
    assert config["net0"].startswith("virtio=BC:24:11:")
    assert config["net0"].endswith(",bridge=vmbr0,tag=7")
    assert (config["cores"], config["memory"], config["agent"]) == (2, "2048", "1")
    assert answer.data["vmid"] in client["prod"].emulated.state.pools["office"].vmids


async def test_a_windows_vm_boots_an_iso_with_uefi_and_tpm(client):
    answer = await client("CreateVm", **VM, iso=ISO, os_type="win11", uefi=True, wait=True)
    config = guest_of(client, answer).config
    assert config["ide2"] == f"{ISO},media=cdrom"
    assert (config["bios"], config["machine"]) == ("ovmf", "q35")
    assert "efitype=4m" in config["efidisk0"]
    assert "version=v2.0" in config["tpmstate0"]


async def test_a_vm_without_a_system_is_not_waited_for(client):
    answer = await client("CreateVm", **VM, iso=ISO, start=True, wait=True)
    assert (answer.data["guest_status"], answer.data["ip_addresses"]) == ("running", [])
    assert "Its address is known when a guest agent runs in it" in answer.notes
    assert not [one for one in client.requests("prod") if "/agent/" in one]


async def test_a_cloud_image_becomes_a_reachable_vm(client):
    answer = await client(
        "CreateVm",
        **VM,
        image=IMAGE,
        ciuser="admin",
        password=SECRET,
        ip="10.30.9.8/24,10.30.9.1",
        start=True,
        wait=True,
    )
    guest = guest_of(client, answer)
    assert answer.data["ip_addresses"] == ["10.30.9.8"]
    assert guest.config["scsi0"].endswith("size=3G")
    assert guest.config["ide2"] == f"ceph-vm:vm-{guest.vmid}-cloudinit,media=cdrom"
    assert SECRET not in repr((answer, client.audit.events))


async def test_a_container_is_created_and_started(client):
    answer = await client(
        "CreateContainer", **CT, ssh_keys=[KEY], password=SECRET, start=True, wait=True
    )
    guest = guest_of(client, answer)
    assert (guest.config["unprivileged"], guest.config["features"]) == (1, "nesting=1")
    assert guest.config["rootfs"].endswith("size=8G")
    assert answer.data["ip_addresses"] == list(guest.addresses)
    assert SECRET not in repr((answer, client.audit.events, guest.config))
    shutdown, removal = map(offered, answer.data["undo"].split("; "))
    assert (shutdown[0], shutdown[1]["action"]) == ("ChangeVmState", "Shutdown")
    assert removal == (
        "DeleteVm",
        {"cluster_name": "prod", "vmid": guest.vmid, "name": "new-ct"},
    )


@pytest.mark.parametrize(
    ("tool", "arguments", "says"),
    [
        ("CreateVm", VM, "the next free VMID, on pve01: name → new-vm, ostype → l26, "),
        ("CreateVm", {**VM, "vlan": 7}, "net0 → virtio,bridge=vmbr0,tag=7"),
        ("CreateVm", {**VM, "new_vmid": 777}, "Create qemu 777 (new-vm) on prod on pve01: name"),
        ("CreateVm", {**VM, "iso": ISO, "start": True}, f"from {ISO}: "),
        ("CreateContainer", CT, "Without password and ssh_keys, only its node can enter it."),
        ("CreateContainer", {**CT, "unprivileged": False}, "its root is the root of the node"),
        ("CreateContainer", {**CT, "password": SECRET}, "password → ***"),
    ],
)
async def test_a_dry_run_says_what_is_created(client, tool, arguments, says):
    answer = await client(tool, **arguments, dry_run=True)
    assert says in answer.data["would"]
    assert "ceph-vm on pve01 has" in answer.data["room"]
    assert sent(client) == []


@pytest.mark.parametrize(
    ("tool", "arguments", "says"),
    [
        ("CreateVm", {"iso": "nfs-iso:iso/nope.iso"}, "No iso file 'nfs-iso:iso/nope.iso'"),
        ("CreateVm", {"image": "local:import/nope.qcow2"}, "No import file"),
        ("CreateVm", {"image": "ceph-vm:vm-101-disk-0"}, "No import file"),
        ("CreateVm", {"image": IMAGE, "disk_size": 8}, "a disk image has its own size"),
        ("CreateVm", {"password": SECRET}, "need a cloud image"),
        ("CreateVm", {"bridge": "vmbr9"}, "No bridge 'vmbr9' on pve01. Did you mean vmbr0?"),
        ("CreateVm", {"storage": "nfs-iso"}, "nfs-iso"),
        ("CreateVm", {"new_vmid": 105}, "VMID 105 on prod cannot be used"),
        ("CreateContainer", {"template": "local:vztmpl/no.tar.zst"}, "No vztmpl file"),
        ("CreateContainer", {"pool": "nope"}, "No pool 'nope' on prod"),
    ],
)
async def test_what_cannot_be_created_is_refused(client, tool, arguments, says):
    error = await client.refused(tool, **{**(VM if tool == "CreateVm" else CT), **arguments})
    assert says in error
    assert SECRET not in error
    assert sent(client) == []


@pytest.mark.parametrize("tool", ["CreateVm", "CreateContainer"])
async def test_a_role_for_a_pool_creates_only_into_what_it_names(client, tool):
    grant = Resources(
        pools=frozenset({"office"}),
        storages=frozenset({"local"}),
        target_nodes=frozenset({"pve01"}),
        target_storages=frozenset({"ceph-vm"}),
    )
    scoped, call = client.scoped(grant), VM if tool == "CreateVm" else CT
    assert "Give pool: office." in await scoped.refused(tool, **call)
    for hidden in ({"pool": "infra"}, {"storage": "local-zfs"}, {"node": "pve02"}):
        error = await scoped.refused(tool, **{**call, "pool": "office", **hidden})
        assert error.startswith("No "), error
    bridge = await scoped.refused(tool, **call, pool="office", bridge="vmbr9")
    assert bridge == "No bridge 'vmbr9' on pve01."
    assert (await scoped(tool, **call, pool="office", wait=True)).data["ok"] is True


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("CreateVm", {**VM, "image": IMAGE}),
        ("CreateContainer", CT),
        ("CloneVm", {"cluster_name": "prod", "source": "9000", "name": "copy"}),
        ("UpdateVmConfig", {"cluster_name": "prod", "vmid": 105}),
    ],
)
async def test_a_plan_that_is_logged_has_no_password(client, monkeypatch, tool, arguments):
    plans = []
    monkeypatch.setattr(Plan, "preview", lambda plan: plans.append(plan) or {})
    await client(tool, **arguments, password=SECRET, dry_run=True)
    [plan] = plans
    assert SECRET not in repr(plan)


@pytest.mark.parametrize("wait", [True, False])
async def test_guests_that_are_made_at_the_same_time_get_vmids_of_their_own(client, wait):
    calls = [
        ("CreateVm", VM),
        ("CreateContainer", CT),
        ("CloneVm", {"cluster_name": "prod", "source": "105", "name": "copy"}),
        ("RestoreBackup", {"cluster_name": "prod", "backup": "101", "name": "back"}),
    ]
    calls = [(tool, {**a, "name": f"{a['name']}-{n}"}) for n in range(2) for tool, a in calls]
    answers = await asyncio.gather(*(client(tool, **a, wait=wait) for tool, a in calls))
    state = client["prod"].emulated
    await state.tasks.settle()
    made = {answer.data["vmid"]: a["name"] for (_, a), answer in zip(calls, answers, strict=True)}
    assert len(made) == len(calls)
    assert {vmid: state.state.guests[vmid].name for vmid in made} == made
    assert state.state.reserved == {}
