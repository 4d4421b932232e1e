"""UpdateVmConfig: plans, what waits, undo, and what is refused."""

import pytest
from tests.server.tools.tool_client import offered

from proxmox_client.api.guests import Guest
from proxmox_client.emulator import ManualClock, demo
from pvemcp_server.access.model import Resources
from pvemcp_server.mcp.elicitation import Decision
from pvemcp_server.toolkit import guest_options

pytestmark = pytest.mark.anyio

VM, CONTAINER = 105, 300
KEY = "ssh-ed25519 AAAAC3Nz joe@x"


@pytest.fixture(scope="module")
async def opened(anyio_backend, open_client):
    async with open_client(demo(), ManualClock()) as client:
        yield client


@pytest.fixture
def client(opened):
    """Return a client whose VM and container are as at the start."""
    guests = opened["prod"].emulated.state.guests
    before = {vmid: dict(guests[vmid].config) for vmid in (VM, CONTAINER)}
    yield opened
    for vmid, config in before.items():
        guests[vmid].config, guests[vmid].pending, guests[vmid].removals = config, {}, {}
        guests[vmid].touch()
    opened.refresh()
    opened.requests("prod")
    opened.conversation.questions.clear()
    opened.conversation.decision = Decision.YES


@pytest.fixture
def vm(client):
    return client["prod"].emulated.state.guests[VM]


async def change(client, vmid=VM, **arguments):
    answer = await client("UpdateVmConfig", cluster_name="prod", vmid=vmid, **arguments)
    assert not answer.failed, answer.text
    return answer


async def refused(client, vmid=VM, **arguments):
    error = await client.refused("UpdateVmConfig", cluster_name="prod", vmid=vmid, **arguments)
    assert not [r for r in client.requests("prod") if r.startswith("PUT")]
    return error


async def plan(client, vmid=VM, **arguments):
    return (await change(client, vmid, **arguments, dry_run=True)).data["would"]


async def test_a_plan_shows_old_and_new_and_what_waits(client):
    would = await plan(client, cores=8, tags=["+blue"], options=["balloon=1024"])
    assert would == (
        "Change qemu 105 (web-frontend) on prod: cores 4 → 8, "
        "tags production;web → production;web;blue, balloon → 1024. "
        "At once: tags, balloon. Waiting for a restart: cores."
    )


async def test_a_plan_shows_the_parts_that_change_of_a_long_value(client):
    would = await plan(client, CONTAINER, vlan=7, ip="10.0.0.5/24")
    assert "on prod: net0 (ip dhcp → 10.0.0.5/24, tag not set → 7). At once: net0." in would


async def test_the_answer_says_what_is_in_force_and_what_is_pending(client, vm):
    answer = await change(client, cores=8, description="New")
    assert answer.data["in_force"] == ["description → 'New'"]
    assert answer.data["pending"] == ["cores: 4 → 8"]
    assert "take effect when it is stopped and started" in answer.notes
    assert (vm.config["cores"], vm.pending["cores"]) == (4, 8)


@pytest.mark.parametrize(
    ("vmid", "arguments"),
    [
        (VM, {"cores": 8, "memory": 4096, "description": "one\ntwo, three", "tags": ["+blue"]}),
        (VM, {"bridge": "vmbr1", "vlan": 7, "options": ["firewall=true", "rate=50"]}),
        (VM, {"network": "net1", "bridge": "vmbr1"}),
        (VM, {"unset": ["net0", "onboot"]}),
        (VM, {"tags": ["-production", "-web"]}),
        (VM, {"options": ["name=renamed", "boot=net0", "agent=enabled=1,fstrim_cloned_disks=1"]}),
        (
            VM,
            {
                "options": ["ciuser=admin", f"sshkeys={KEY}"],
                "ip": "10.0.0.5/24,10.0.0.1",
            },
        ),
        (CONTAINER, {"memory": 1024, "options": ["hostname=other", "swap=64", "nameserver=::1"]}),
        (CONTAINER, {"ip": "10.0.0.5/24", "vlan": 9}),
    ],
)
async def test_the_undo_restores_the_configuration(client, vmid, arguments):
    guest = client["prod"].emulated.state.guests[vmid]
    before = (dict(guest.config), dict(guest.pending))
    answer = await change(client, vmid, **arguments)
    assert (guest.config, guest.pending) != before
    tool, undo = offered(answer.data["undo"])
    assert tool == "UpdateVmConfig"
    undone = await client(tool, **undo)
    assert not undone.failed, undone.text
    assert (guest.config, guest.pending) == before


async def test_a_network_keeps_its_address_and_other_parts(client, vm):
    old = vm.config["net0"]
    await change(client, vlan=7)
    assert vm.config["net0"] == f"{old},tag=7"
    await change(client, vlan=0)
    assert vm.config["net0"] == old


async def test_a_pending_change_is_dropped_by_name(client, vm):
    await change(client, cores=8, memory=4096)
    answer = await change(client, revert=["cores"])
    client.requests("prod")
    assert (vm.pending.keys(), answer.data["pending"]) == ({"memory"}, ["memory: 8192 → 4096"])
    assert "Pending is memory." in await refused(client, revert=["cores"])
    assert offered(answer.data["undo"])[1]["options"] == ["cores=8"]


@pytest.mark.parametrize(
    ("arguments", "loss"),
    [
        ({"unset": ["net0"]}, "What is connected through net0 is cut off."),
        (
            {"bridge": "vmbr1"},
            "It may no longer be reachable where it is now: net0 (bridge vmbr0 → vmbr1).",
        ),
        (
            {"vlan": 7},
            "It may no longer be reachable where it is now: net0 (tag not set → 7).",
        ),
        (
            {"options": ["firewall=0"]},
            "Its network is filtered, tagged or limited in another way: net0 (firewall 1 → 0).",
        ),
        ({"options": ["rate=50"]}, "net0 (rate not set → 50)."),
        (
            {"network": "net1", "bridge": "vmbr1"},
            "No firewall filters the new net1.",
        ),
        ({"options": ["net1=virtio,bridge=vmbr1,firewall=0"]}, "No firewall filters the new net1"),
        ({"network": "net1", "bridge": "vmbr1", "options": ["firewall=1"]}, None),
        ({"cores": 8, "tags": ["+blue"], "options": ["onboot=0"]}, None),
    ],
)
async def test_what_loses_access_is_asked_about(client, arguments, loss):
    assert (loss or "reachable") in await plan(client, **arguments) or loss is None
    await change(client, **arguments)
    assert len(client.conversation.questions) == (loss is not None)


# parts of network devices and addresses; a guest keeps all others
PARTS = (
    *((VM, f"net0=virtio=BC:24:11:00:00:01,bridge=vmbr0{part}") for part in ("", ",firewall=0")),
    (VM, "net0=virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=1,trunks=1-4094"),
    (VM, "net0=virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=1,rate=1"),
    (VM, "net0=virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=1,tag=7"),
    (VM, "net0=virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=1,link_down=1"),
    (VM, "net0=virtio=BC:24:11:00:00:02,bridge=vmbr0,firewall=1"),
    (VM, "net0=e1000=BC:24:11:00:00:01,bridge=vmbr0,firewall=1"),
    (VM, "net0=virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=1,mtu=9000"),
    (VM, "ipconfig0=ip=192.0.2.2/24"),
    (CONTAINER, "net0=name=eth0,bridge=vmbr0,firewall=0,hwaddr=BC:24:11:00:00:01"),
    (CONTAINER, "net0=name=eth0,bridge=vmbr0,firewall=1,trunks=2;3,hwaddr=BC:24:11:00:00:01"),
)
SAME = "net0=virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=1,link_down=0,queues=2"


async def test_every_part_of_a_network_that_changes_is_asked_about(client):
    guests = client["prod"].emulated.state.guests
    guests[VM].config["net0"] = "virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=1"
    guests[VM].config["ipconfig0"] = "ip=dhcp"
    guests[CONTAINER].config["net0"] = "name=eth0,bridge=vmbr0,firewall=1,hwaddr=BC:24:11:00:00:01"
    client.conversation.decision = Decision.NO
    changes = [(vmid, {"options": [option]}) for vmid, option in PARTS]
    for vmid, arguments in (*changes, (VM, {"unset": ["ipconfig0"]})):
        assert "declined" in await refused(client, vmid, **arguments), arguments
    await change(client, options=[SAME])
    assert len(client.conversation.questions) == len(PARTS) + 1


@pytest.mark.parametrize("vmid", [VM, CONTAINER])
@pytest.mark.parametrize("arguments", [{"options": ["protection=0"]}, {"unset": ["protection"]}])
async def test_the_end_of_protection_from_deletion_is_asked_about(client, vmid, arguments):
    await change(client, vmid, options=["protection=1"])
    assert client.conversation.questions == []
    await change(client, vmid, **arguments)
    [question] = client.conversation.questions
    assert "Proxmox then no longer protects it from deletion." in question


@pytest.mark.parametrize("pending", [{"hostpci0": "0000:01:00"}, {"hookscript": "local:x.pl"}])
async def test_no_undo_is_offered_that_would_be_refused(client, vm, pending):
    vm.pending = {**pending, "cores": 2}
    answer = await change(client, revert=[*pending, "cores"])
    assert offered(answer.data["undo"])[1]["options"] == ["cores=2"]
    vm.pending = dict(pending)
    assert "undo" not in (await change(client, revert=[*pending])).data


async def test_a_password_is_nowhere_but_in_the_request(client, vm):
    secret = "hunter2-hunter2"
    vm.config["cipassword"] = "old"
    events = len(client.audit.events)
    answer = await change(client, password=secret, options=["ciuser=admin"])
    assert vm.config["cipassword"] == secret
    [question] = client.conversation.questions
    assert "cipassword *** → ***" in question
    assert "present password cannot be read back" in question
    seen = [answer.text, answer.notes, question, repr(client.audit.events[events:])]
    assert not [text for text in seen if secret in text]
    assert "password" not in str(answer.data["undo"])


@pytest.mark.parametrize(
    ("vmid", "pending"),
    [
        (VM, {"args": "-object secret,id=s,data=hunter2-hunter2"}),
        (VM, {"cipassword": "hunter2-hunter2"}),
        (CONTAINER, {"env": "TOKEN=hunter2-hunter2\0PASSWORD=hunter2-hunter2"}),
    ],
)
async def test_secrets_of_what_is_reverted_stay_hidden(client, vmid, pending):
    client["prod"].emulated.state.guests[vmid].pending = dict(pending)
    call = {"vmid": vmid, "revert": [*pending]}
    preview = await change(client, **call, dry_run=True)
    answer = await change(client, **call)
    assert next(iter(pending)) in preview.data["would"]
    assert "hunter2" not in repr((preview, answer, client.audit.events[-2:]))


@pytest.mark.parametrize("vmid", [VM, CONTAINER])
async def test_a_change_in_between_is_refused_with_the_next_step(client, vmid, monkeypatch):
    guest, send = client["prod"].emulated.state.guests[vmid], Guest.set_config

    async def late(self, *arguments, **options):
        guest.config["description"] = "of another user"
        await send(self, *arguments, **options)

    monkeypatch.setattr(Guest, "set_config", late)
    arguments = {"cluster_name": "prod", "vmid": vmid, "options": ["onboot=0"]}
    error = await client.refused("UpdateVmConfig", **arguments)
    assert "so nothing was written" in error
    assert "Repeat the call" in error
    assert guest.config["onboot"] == 1


@pytest.mark.parametrize("vmid", [VM, CONTAINER])
@pytest.mark.parametrize(
    "arguments",
    [
        {"options": ["hookscript=local:snippets/x"]},
        {"options": ["lock=backup"]},
        {"options": ["scsi0=local:1"]},
        {"options": ["tags=x"]},
        {"options": ["cipassword=hunter2"]},
        {"options": ["template=1"]},
        {"unset": ["scsi0"]},
        {"unset": ["lock"]},
        {"options": ["cores"]},
        {"options": ["cores=many"]},
        {"cores": 2, "options": ["cores=3"]},
        {"cores": 2, "unset": ["cores"]},
        {"network": "net5", "vlan": 7},
        {"tags": ["+a", "b"]},
        {"ip": ",10.0.0.1"},
        {},
        {"options": ["onboot=true"]},
    ],
)
async def test_what_it_does_not_set_is_refused_before_anything_is_sent(client, vmid, arguments):
    assert await refused(client, vmid, **arguments)


@pytest.mark.parametrize(
    "arguments",
    [{"options": ["boot=order=scsi0;net9"]}, {"options": ["balloon=99999"]}, {"memory": 8}],
)
async def test_values_that_fail_later_are_refused(client, arguments):
    assert await refused(client, **arguments)


@pytest.mark.parametrize("tags", [["+team"], ["-production"], ["+Protected"], ["web"]])
async def test_a_key_does_not_change_tags_that_decide_about_its_rights(client, tags):
    scoped = client.scoped(Resources(tags=frozenset({"production", "team"})))
    error = await refused(scoped, tags=tags)
    assert "decides what this key may do" in error
    await change(scoped, tags=["+blue"])


@pytest.mark.parametrize("vmid", [VM, CONTAINER])
async def test_what_a_running_guest_cannot_take_is_named_and_the_rest_applied(client, vmid):
    guest = client["prod"].emulated.state.guests[vmid]
    call = {"cluster_name": "prod", "vmid": vmid, "network": "net1", "bridge": "nope"}
    error = await client.refused("UpdateVmConfig", **call, description="new")
    assert "could not take net1 while it runs" in error
    assert "revert=['net1'] drops it" in error
    assert guest.config["description"] == "new"
    assert guest.pending.keys() == {"net1"}


async def test_warnings_name_what_will_not_work(client):
    would = await plan(client, cores=400, bridge="vmbr77", options=["ciuser=admin"])
    assert "with 400 it does not start." in would
    assert "pve01 has no vmbr77" in would
    assert "no cloud-init drive" in would


async def test_a_long_option_is_read_once_and_a_longer_one_refused(client, monkeypatch):
    counts = []
    counted = guest_options.counted
    monkeypatch.setattr(
        guest_options, "counted", lambda n, noun: counts.append(noun) or counted(n, noun)
    )
    keys = "sshkeys=" + "%0A".join(["ssh-ed25519%20AAAA"] * 500)
    call = {"cluster_name": "prod", "vmids": [VM], "dry_run": True}
    answer = await client("UpdateVmConfig", **call, options=[keys])
    assert "sshkeys → 500 keys" in answer.text
    assert counts.count("key") <= 2  # for what differs, and for the words of the plan
    error = await client.refused("UpdateVmConfig", **call, options=[f"{keys}{'%41' * 8_000}"])
    assert "sshkeys has more than 16,384 characters" in error
