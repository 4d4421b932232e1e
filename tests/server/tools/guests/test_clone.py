"""CloneVm."""

import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from tests.server.tools.tool_client import FakeFreezes, offered

from proxmox_client.emulator import FaultKind, demo
from proxmox_client.emulator.state.guest import Kind
from pvemcp_server.access.freezes import Freeze
from pvemcp_server.access.model import Resources

pytestmark = pytest.mark.anyio

PROD = {"cluster_name": "prod"}
TEMPLATE = {**PROD, "source": "9000", "name": "web-21"}
KEY = "ssh-ed25519 AAAAC3Nz joe@x"
SECRET = "Tr0ub4dor-and-3"


@pytest.fixture(scope="module")
async def module_client(anyio_backend, open_client):
    async with open_client(demo()) as opened:
        yield opened


@pytest.fixture
def client(module_client):
    """Return a client with an audit of its own, on clusters that the module shares."""
    module_client.requests("prod")
    fresh = type(module_client.audit)(), type(module_client.conversation)()
    return replace(module_client, audit=fresh[0], conversation=fresh[1])


def sent(client):
    return [request for request in client.requests("prod") if not request.startswith("GET")]


def guest_of(client, answer):
    return client["prod"].emulated.state.guests[answer.data["vmid"]]


def stopped_container(client):
    guests = client["prod"].emulated.state.guests.values()
    return next(
        g for g in guests if g.kind is Kind.LXC and not g.running and "ceph" in g.config["rootfs"]
    )


async def test_a_template_becomes_a_reachable_guest_in_one_call(client):
    answer = await client(
        "CloneVm",
        source="tpl-debian-13",
        name="web-21",
        pool="production",
        tags="web;production",
        memory=4096,
        ciuser="admin",
        password=SECRET,
        ssh_keys=[KEY],
        ip="10.30.9.9/24,10.30.9.1",
        dns="10.30.9.1 lab.example",
        start=True,
        wait=True,
    )
    guest = guest_of(client, answer)
    assert (answer.data["ok"], answer.data["guest_status"]) == (True, "running")
    assert answer.data["ip_addresses"] == ["10.30.9.9"]
    assert (guest.name, guest.running, guest.template) == ("web-21", True, False)
    expected = {
        "memory": "4096",
        "ciuser": "admin",
        "ipconfig0": "ip=10.30.9.9/24,gw=10.30.9.1",
        "nameserver": "10.30.9.1",
        "searchdomain": "lab.example",
        "tags": "production;web",
    }
    assert {name: guest.config[name] for name in expected} == expected
    assert guest.vmid in client["prod"].emulated.state.pools["production"].vmids
    shutdown, removal = map(offered, answer.data["undo"].split("; "))
    assert (shutdown[0], shutdown[1]["action"]) == ("ChangeVmState", "Shutdown")
    assert removal == (
        "DeleteVm",
        {**PROD, "vmid": guest.vmid, "name": guest.name},
    )
    assert len([one for one in sent(client) if one.endswith("/clone")]) == 1
    assert SECRET not in repr((answer, client.audit.events, client.conversation))
    outcome = client.audit.events[-1][1]
    assert outcome.arguments["password"] == "***"
    assert outcome.upid.count("UPID:") == 2


async def test_a_dry_run_says_what_is_made_and_hides_the_password(client):
    answer = await client(
        "CloneVm", **TEMPLATE, pool="office", cores=4, password=SECRET, start=True, dry_run=True
    )
    assert re.sub(r"VMID \d+", "VMID n", answer.data["would"]) == (
        "Clone qemu 9000 (tpl-debian-13) on prod to VMID n, the next free one, as web-21 on pve01 "
        "in pool office, linked to its disks on ceph-vm. Then set cores 2 → 4, cipassword → ***. "
        "Then start it. It is linked: the template cannot be deleted while it exists."
    )
    assert re.search(r"pve01 has .* memory free\..* ceph-vm on pve01 has", answer.data["room"])
    assert SECRET not in repr((answer, client.audit.events))
    assert sent(client) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"full": True}, "with full copies of its disks (32.0 GiB) on ceph-vm"),
        ({"storage": "local-zfs"}, "with full copies of its disks (32.0 GiB) on local-zfs"),
        ({"target_node": "pve02"}, "as web-21 on pve02, linked"),
        ({"new_vmid": 777}, "to VMID 777 as web-21"),
        ({"source": "105"}, "with full copies of its disks"),
        ({"source": "web-frontend"}, "Its source runs: the copy is as after a power failure."),
        ({"source": "105", "start": True}, "the fixed addresses of its source"),
    ],
)
async def test_the_plan_says_how_it_is_cloned(client, arguments, says):
    answer = await client("CloneVm", **{**TEMPLATE, **arguments}, dry_run=True)
    assert says in answer.data["would"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"source": "105", "full": False}, "full: qemu 105 (web-frontend) on prod is no template"),
        ({"storage": "local-zfs", "full": False}, "leave out storage"),
        ({"source": "tpl-debian-12"}, "No guest 'tpl-debian-12' on prod. Did you mean tpl-debian"),
        ({"new_vmid": 300}, "VMID 300 on prod cannot be used"),
        ({"pool": "offic"}, "No pool 'offic' on prod. Did you mean office"),
        ({"source": "105", "password": SECRET}, "has no cloud-init drive"),
        ({"storage": "nfs-iso"}, "does not"),
        ({"target_node": "pve05"}, "Node pve05 on prod is offline"),
        ({"target_node": "pve02", "storage": "local-zfs"}, "only on shared storages"),
        ({"source": "403"}, "locked|local disks"),
        ({"snapshot_name": "nope"}, "No snapshot 'nope'"),
        ({"name": "bad_name"}, "a guest's name is a DNS name"),
        ({"password": "abc"}, "password"),
    ],
)
async def test_what_cannot_be_cloned_is_refused_before_anything_is_sent(client, arguments, says):
    other = {"target_node": "pve02"} if arguments == {"source": "403"} else {}
    error = await client.refused("CloneVm", **{**TEMPLATE, **arguments, **other})
    assert re.search(says, error) or says in error, error
    assert SECRET not in error
    assert sent(client) == []


async def test_a_name_that_two_guests_have_is_not_guessed(client):
    guests = client["prod"].emulated.state.guests
    guests[9001].config["name"] = "tpl-debian-13"
    guests[9001].touch()
    client.refresh()
    try:
        error = await client.refused("CloneVm", **{**TEMPLATE, "source": "tpl-debian-13"})
    finally:
        guests[9001].config["name"] = "tpl-win2025"
        guests[9001].touch()
        client.refresh()
    assert "prod has 9000 (qemu); prod has 9001 (qemu). Give its VMID." in error


@pytest.mark.parametrize("taken", [101, 102], ids=["refused at once", "refused in the task"])
async def test_a_vmid_that_another_client_takes_is_replaced(client, monkeypatch, taken):
    # 101 is on the template's node; a VMID of another node fails in the task
    real, answers = client["prod"].pve.cluster.nextid, [taken]

    async def nextid(vmid=None):
        return answers.pop() if answers else await real(vmid)

    monkeypatch.setattr(client["prod"].pve.cluster, "nextid", nextid)
    answer = await client("CloneVm", **TEMPLATE, wait=True)
    assert answer.data["vmid"] != taken
    assert answer.data["ok"] is True
    assert guest_of(client, answer).name == "web-21"


async def test_a_call_that_does_not_wait_answers_at_once(client):
    answer = await client("CloneVm", **TEMPLATE)
    assert (answer.data["task_status"], "guest_status" in answer.data) == ("running", False)
    assert ":qmclone:9000:" in answer.data["upid"]


@pytest.mark.parametrize(
    ("fault", "says", "requests"),
    [
        (
            {"kind": FaultKind.ERROR, "method": "PUT", "message": "boom"},
            "its options were not set, nor was it started: ",
            ["clone", "config"],
        ),
        (
            {"kind": FaultKind.DROP, "path": ".*/status/start"},
            "it was not started: ",
            ["clone", "config", "start"],
        ),
    ],
    ids=["options refused", "start without an answer"],
)
async def test_a_step_that_fails_names_the_new_guest(client, fault, says, requests):
    injected = client["prod"].emulated.fault(**fault)
    try:
        error = await client.refused("CloneVm", **TEMPLATE, cores=4, start=True)
    finally:
        client["prod"].emulated.faults.remove(injected)
    made = list(client["prod"].emulated.state.guests)[-1]
    assert error.startswith(f"qemu {made} (web-21) on prod was cloned, but {says}")
    assert f'undo it: DeleteVm {{"cluster_name":"prod","vmid":{made},"name":' in error
    assert [one.rpartition("/")[2] for one in sent(client)] == requests
    kind, event = client.audit.events[-1]
    assert (kind, event.outcome, event.reason) == ("outcome", "error", error)
    assert ":qmclone:9000:" in event.upid


async def test_a_freeze_between_two_steps_names_the_new_guest(client, monkeypatch):
    freezes = FakeFreezes()

    async def freeze_after_one_write():
        await freezes.refuse("prod")
        freezes.freeze = Freeze(None, datetime(2027, 1, 31, tzinfo=UTC), "ada", "restore")

    monkeypatch.setattr(client["prod"].pve._pool, "before_write", freeze_after_one_write)
    error = await client.refused("CloneVm", **TEMPLATE, cores=4, start=True)
    says = "was cloned, but its options were not set, nor was it started: Writes are frozen on all"
    assert says in error
    assert "undo it: DeleteVm" in error


async def test_an_address_that_is_not_known_yet_is_said(client):
    client.change(task_wait_max_seconds=1)
    client["prod"].emulated.state.guests[9000].agent.answers = False
    try:
        answer = await client("CloneVm", **TEMPLATE, start=True, wait=True)
    finally:
        client["prod"].emulated.state.guests[9000].agent.answers = True
    assert (answer.data["guest_status"], answer.data["ip_addresses"]) == ("running", [])
    expected = f"No guest agent answers yet; call GetVmStatus with vmid {answer.data['vmid']}."
    assert expected in answer.notes


async def test_a_container_gets_its_address_by_its_own_network(client):
    source = stopped_container(client)
    answer = await client(
        "CloneVm",
        **PROD,
        source=str(source.vmid),
        name="dns-9",
        ip="10.30.8.8/24,10.30.8.1",
        start=True,
        wait=True,
    )
    guest = guest_of(client, answer)
    assert answer.data["ip_addresses"] == ["10.30.8.8"]
    assert "ip=10.30.8.8/24" in guest.config["net0"]
    old, new = (re.search("hwaddr=([^,]+)", g.config["net0"])[1] for g in (source, guest))
    assert old != new
    refused = await client.refused(
        "CloneVm", **PROD, source=str(source.vmid), name="dns-9", ciuser="x"
    )
    assert "ciuser: it is for cloud-init" in refused


async def test_a_running_container_needs_a_snapshot(client):
    guests = client["prod"].emulated.state.guests.values()
    running = next(g for g in guests if g.kind is Kind.LXC and g.running)
    error = await client.refused("CloneVm", **PROD, source=str(running.vmid), name="copy")
    assert "a running container is cloned from a snapshot" in error


GRANT = Resources(
    pools=frozenset({"office"}),
    vmids=frozenset({9000}),
    target_nodes=frozenset({"pve01"}),
    target_storages=frozenset({"ceph-vm"}),
)


@pytest.mark.parametrize(
    ("less", "arguments", "says"),
    [
        ({}, {}, "outside of what the role of this key covers. Give pool: office."),
        ({}, {"pool": "production"}, "No pool 'production' on prod. There is office."),
        ({}, {"pool": "office", "source": "105"}, "No guest '?105'? on prod"),
        ({}, {"pool": "office", "source": "web-frontend"}, "No guest 'web-frontend' on prod"),
        ({}, {"pool": "office", "target_node": "pve02"}, "No node 'pve02' on prod. Did you mean"),
        ({}, {"pool": "office", "storage": "local-zfs"}, "No storage 'local-zfs' on pve01 of prod"),
        ({"target_storages": frozenset()}, {"pool": "office"}, "A storage that a clone of qemu"),
        ({"target_nodes": frozenset()}, {"pool": "office"}, "No node 'pve01' on prod. Writes may"),
    ],
)
async def test_a_role_for_a_pool_clones_only_into_what_it_names(client, less, arguments, says):
    scoped = client.scoped(replace(GRANT, **less))
    error = await scoped.refused("CloneVm", **{**TEMPLATE, **arguments})
    assert re.search(says.replace(".", r"\."), error), error
    assert sent(client) == []


async def test_a_role_for_a_pool_clones_into_it(client):
    answer = await client.scoped(GRANT)("CloneVm", **TEMPLATE, pool="office", wait=True)
    assert guest_of(client, answer).vmid in client["prod"].emulated.state.pools["office"].vmids


@pytest.mark.parametrize(("tags", "is_inside"), [("team", True), ("production;web", False)])
async def test_the_tags_of_the_snapshot_decide_about_its_clone(client, tags, is_inside):
    guest = client["prod"].emulated.state.guests[105]
    [name, *_] = guest.snapshots
    snapshot = guest.snapshots[name]
    before, snapshot.config = snapshot.config, {**snapshot.config, "tags": tags}
    role = replace(GRANT, vmids=frozenset({105}), pools=frozenset(), tags=frozenset({"team"}))
    everywhere = replace(role, target_storages=frozenset({"*"}), target_nodes=frozenset({"*"}))
    call = {**TEMPLATE, "source": "105", "snapshot_name": name}
    answer = await client.scoped(everywhere)("CloneVm", **call, dry_run=True)
    snapshot.config = before
    assert (answer.failed, "outside of what the role" in answer.text) == (not is_inside,) * 2


async def test_a_privilege_that_a_later_step_lacks_refuses_the_clone(client, new_token, with_token):
    token = new_token(client["prod"].emulated, ("/", "PVETemplateUser"), ("/", "PVEAuditor"))
    narrow = await with_token(client, "prod", token)
    error = await narrow.refused("CloneVm", **TEMPLATE, cores=4)
    assert "lacks VM.Config.CPU on /vms of prod, so Proxmox would refuse a step after" in error
    answer = await narrow("CloneVm", **TEMPLATE, dry_run=True)
    assert "lacks VM.Allocate on /vms of prod, so Proxmox will refuse this" in answer.notes
