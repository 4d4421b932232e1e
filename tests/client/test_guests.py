"""Guests: lookup by VMID, migrations, snapshots, power, configurations."""

import pytest

from proxmox_client import AgentRefused, Lxc, NotFound, Qemu, ResponseError, UnexpectedAnswer
from proxmox_client.json_decoder import tolerate_malformed

pytestmark = pytest.mark.anyio

UPID = "UPID:pve1:000002CD:000E132A:6B02ABF1:qmstart:100:mcp@pve!full:"
RESOURCES = "GET /cluster/resources"
GONE = "Configuration file 'nodes/pve1/qemu-server/100.conf' does not exist"


def row(kind: str, vmid: int, node: str) -> dict:
    return {"id": f"{kind}/{vmid}", "type": kind, "vmid": vmid, "node": node, "status": "running"}


async def test_a_guest_is_found_by_vmid_in_one_request(client, pve):
    # Quirk 43: type=vm covers virtual machines and containers.
    pve.answer(RESOURCES, [row("qemu", 100, "pve1"), row("lxc", 200, "pve2")])
    vm, container = await client.guest(100), await client.guest(200)
    assert (type(vm), vm.node, type(container), container.node) == (Qemu, "pve1", Lxc, "pve2")
    assert pve.lines[0] == "GET /cluster/resources type=vm"


async def test_an_invisible_guest_is_not_found(client, pve):
    pve.answer(RESOURCES, [row("qemu", 100, "pve1")])
    with pytest.raises(NotFound, match="999"):
        await client.guest(999)


async def test_a_read_follows_a_migrated_guest(client, pve):
    # Quirks 31 and 43: the old node gives the same error as for a missing guest.
    pve.answer(RESOURCES, [row("qemu", 100, "pve1")])
    pve.answer(RESOURCES, [row("qemu", 100, "pve2")])
    pve.answer_error("GET /nodes/pve1/qemu/100/config", 500, GONE)
    pve.answer("GET /nodes/pve2/qemu/100/config", {"name": "web"})
    guest = await client.guest(100)
    assert (await guest.config()).name == "web"
    assert guest.node == "pve2"


async def test_a_read_of_a_deleted_guest_is_not_repeated(client, pve):
    pve.answer(RESOURCES, [row("qemu", 100, "pve1")])
    pve.answer_error("GET /nodes/pve1/qemu/100/config", 500, GONE)
    guest = await client.guest(100)
    with pytest.raises(NotFound, match=r"100\.conf"):
        await guest.config()
    assert pve.lines.count("GET /nodes/pve1/qemu/100/config") == 1


async def test_a_write_does_not_follow_a_migrated_guest(client, pve):
    pve.answer(RESOURCES, [row("qemu", 100, "pve1")])
    pve.answer_error("POST /nodes/pve1/qemu/100/migrate", 500, GONE)
    guest = await client.guest(100)
    with pytest.raises(NotFound):
        await guest.migrate("pve3")
    assert len(pve.lines) == 2


async def test_a_new_guest_has_few_fields(client, pve):
    # Quirk 23.
    pve.answer(RESOURCES, [{"id": "qemu/100", "type": "qemu", "node": "pve1", "vmid": 100}])
    (guest,) = (await client.cluster.resources()).guests
    assert (guest.status, guest.name, guest.memory, guest.cpu) == ("unknown", "", None, None)


async def test_resources_of_an_unknown_type_are_left_out(client, pve):
    # Quirk 24: 8.4 has sdn where 9.x has network.
    pve.answer(RESOURCES, [row("qemu", 100, "pve1"), {"type": "quantum", "id": "q/1"}])
    assert [guest.vmid for guest in (await client.cluster.resources()).guests] == [100]


async def test_the_pseudo_snapshot_is_hidden_but_gives_the_parent(client, pve):
    # Quirk 27.
    pve.answer(
        "GET /nodes/pve1/qemu/100/snapshot",
        [
            {"name": "two", "parent": "one", "snaptime": 20, "vmstate": 1, "description": "d"},
            {"name": "current", "parent": "two", "running": 1, "description": "You are here!"},
            {"name": "one", "snaptime": 10},
        ],
    )
    guest = client.qemu("pve1", 100)
    rows = await guest.snapshots()
    assert [(row.name, row.parent, row.with_memory) for row in rows] == [
        ("two", "one", True),
        ("one", None, False),
    ]
    assert await guest.current_snapshot() == "two"


@pytest.mark.parametrize("action", ["start", "stop", "reset", "reboot", "suspend", "resume"])
async def test_a_power_action_returns_a_task(action, client, pve):
    pve.answer(f"POST /nodes/pve1/qemu/100/status/{action}", UPID)
    assert str(await client.qemu("pve1", 100).power(action)) == UPID


async def test_a_shutdown_may_be_forced_after_a_timeout(client, pve):
    # Quirk 42.
    pve.answer("POST /nodes/pve1/lxc/200/status/shutdown", UPID)
    await client.lxc("pve1", 200).power("shutdown", timeout=30, force_stop=True)
    assert pve.lines == ["POST /nodes/pve1/lxc/200/status/shutdown timeout=30&forceStop=1"]


async def test_snapshots_are_created_rolled_back_and_deleted(client, pve):
    guest, base = client.qemu("pve1", 100), "/nodes/pve1/qemu/100/snapshot"
    for line in (f"POST {base}", f"POST {base}/a%2Fb/rollback", f"DELETE {base}/a%2Fb"):
        pve.answer(line, UPID)
    await guest.create_snapshot("pre", description="before update", include_memory=True)
    await guest.rollback("a/b", start=True)
    await guest.delete_snapshot("a/b", force=False)
    assert pve.lines == [
        f"POST {base} snapname=pre&description=before+update&vmstate=1",
        f"POST {base}/a%2Fb/rollback start=1",
        f"DELETE {base}/a%2Fb force=0",
    ]


async def test_migrate_check_has_the_same_shape_for_both_kinds(client, pve):
    # Quirk 44: underscores for one, dashes for the other.
    pve.answer(
        "GET /nodes/pve1/qemu/100/migrate",
        {
            "running": 1,
            "allowed_nodes": ["pve2"],
            "not_allowed_nodes": {"pve3": {"unavailable_storages": ["local-zfs"]}},
            "local_disks": [{"volid": "local:100/vm-100-disk-0.qcow2", "size": 1}],
            "local_resources": ["hostpci0"],
            "has-dbus-vmstate": 1,
        },
    )
    pve.answer(
        "GET /nodes/pve1/lxc/200/migrate",
        {
            "running": 0,
            "allowed-nodes": ["pve2"],
            "not-allowed-nodes": {"pve3": {"unavailable-storages": ["local-zfs"]}},
        },
    )
    vm = await client.qemu("pve1", 100).migrate_check("pve2")
    container = await client.lxc("pve1", 200).migrate_check("pve2")
    assert (vm.allowed_nodes, container.allowed_nodes) == (["pve2"], ["pve2"])
    assert set(vm.refused) == set(container.refused) == {"pve3"}
    assert vm.refused == {"pve3": {"unavailable_storages": ["local-zfs"]}}
    assert container.refused == vm.refused
    assert (vm.running, vm.local_resources) == (True, ["hostpci0"])


async def test_migrate_check_of_a_container_needs_9_0(client):
    # Quirk 44.
    with pytest.raises(ResponseError, match="not implemented") as caught:
        await client.lxc("pve1", 200).migrate_check()
    assert caught.value.status == 501


async def test_migration_parameters_differ_by_kind(client, pve):
    # Quirk 44.
    pve.answer("POST /nodes/pve1/lxc/200/migrate", UPID)
    pve.answer("POST /nodes/pve1/qemu/100/migrate", UPID)
    await client.lxc("pve1", 200).migrate("pve2", restart=True, target_storage="a")
    await client.qemu("pve1", 100).migrate(
        "pve2", online=True, target_storage="a", with_local_disks=True
    )
    assert pve.lines == [
        "POST /nodes/pve1/lxc/200/migrate target=pve2&restart=1&target-storage=a",
        "POST /nodes/pve1/qemu/100/migrate target=pve2&online=1&targetstorage=a&with-local-disks=1",
    ]


async def test_guest_agent_answers_are_decoded(client, pve):
    base = "GET /nodes/pve1/qemu/100/agent"
    pve.answer(f"{base}/get-osinfo", {"result": {"id": "debian", "pretty-name": "Debian 12"}})
    address = {"ip-address": "10.0.0.5", "ip-address-type": "ipv4", "prefix": 24}
    pve.answer(
        f"{base}/network-get-interfaces",
        {"result": [{"name": "eth0", "hardware-address": "bc:24", "ip-addresses": [address]}]},
    )
    pve.answer(f"{base}/get-fsinfo", {"result": [{"mountpoint": "/", "total-bytes": 10}]})
    pve.answer("POST /nodes/pve1/qemu/100/agent/ping", {"result": {}})
    guest = client.qemu("pve1", 100)
    await guest.agent_ping()
    assert (await guest.agent_os_info()).pretty_name == "Debian 12"
    assert (await guest.agent_network())[0].addresses[0].address == "10.0.0.5"
    assert (await guest.agent_filesystems())[0].total == 10


REFUSED = {"error": {"class": "CommandNotFound", "desc": "Command x has been disabled"}}
COMMANDS = {
    "get-osinfo": Qemu.agent_os_info,
    "network-get-interfaces": Qemu.agent_network,
    "get-fsinfo": Qemu.agent_filesystems,
}


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_command_that_the_agent_refuses_is_an_error_of_its_own(client, pve, command):
    line, guest = f"GET /nodes/pve1/qemu/100/agent/{command}", client.qemu("pve1", 100)
    pve.answer(line, {"result": REFUSED})
    pve.answer_error(line, 500, f"Agent error: Command guest-{command} has been disabled")
    pve.answer_error(line, 500, f"The command guest-{command} has not been found")
    for _ in range(3):
        with pytest.raises(AgentRefused, match=r"has (been disabled|not been found)"):
            await COMMANDS[command](guest)
    pve.answers[line].clear()
    pve.answer(line, {"result": "nonsense"})
    with pytest.raises(UnexpectedAnswer, match=command):
        await COMMANDS[command](guest)


async def test_the_status_includes_the_ha_state(client, pve):
    # Quirk 49: start and stop of an HA guest are requests to the HA manager.
    pve.answer(
        "GET /nodes/pve1/qemu/100/status/current",
        {"vmid": 100, "status": "running", "ha": {"managed": 1, "state": "started"}},
    )
    status = await client.qemu("pve1", 100).status()
    assert (status.ha.managed, status.ha.state) == (True, "started")


async def test_pressures_sent_as_text_become_numbers(client, pve):
    # Quirks 20 and 25: 8.4 has none, and a point of a series may be empty.
    pve.answer("GET /nodes/pve1/lxc/200/status/current", {"pressurecpusome": "0.25"})
    pve.answer("GET /nodes/pve1/lxc/200/rrddata", [{"time": 60}, {"time": 120, "cpu": "0.5"}])
    guest = client.lxc("pve1", 200)
    assert (await guest.status()).pressure_cpu_some == 0.25
    empty, full = await guest.rrd("decade", "MAX")
    assert (empty.cpu, empty.pressure_cpu_some, full.cpu) == (None, None, 0.5)
    assert pve.lines[-1] == "GET /nodes/pve1/lxc/200/rrddata timeframe=decade&cf=MAX"


# recorded on 9.2 after `delete=scsi2`, `memory=96`, `cores=2` of a running machine
PENDING = [
    {"key": "scsi0", "value": "local:108/vm-108-disk-0.qcow2,size=31458K"},
    {"key": "memory", "value": "64", "pending": "96"},
    {"key": "scsi2", "value": "local:108/vm-108-disk-1.raw,size=1G", "delete": 1},
    {"key": "cores", "pending": 2},
]


@pytest.mark.parametrize("delete", [1, 2])
async def test_running_and_pending_configuration_take_one_request(client, pve, delete):
    rows = [row | {"delete": delete} if "delete" in row else row for row in PENDING]
    pve.answer("GET /nodes/pve1/qemu/108/pending", rows)
    configs = await client.qemu("pve1", 108).configs()
    assert [disk.id for disk in configs.current.disks] == ["scsi0", "scsi2"]
    assert [disk.id for disk in configs.pending.disks] == ["scsi0"]
    assert [disk.id for disk in configs.disks] == ["scsi0", "scsi2"]
    assert (configs.current.memory_mb, configs.pending.memory_mb) == (64, 96)
    assert (configs.current.cores, configs.pending.cores) == (None, 2)
    assert len(pve.lines) == 1


async def test_both_configurations_of_a_container_are_parsed(client, pve):
    rows = [
        {"key": "memory", "value": 96},
        {"key": "features", "pending": "nesting=1"},
        {"key": "mp0", "value": "local:400/vm-400-disk-1.raw,mp=/srv", "delete": 1},
        {"key": "protection", "value": 0, "pending": 1},
    ]
    pve.answer("GET /nodes/pve2/lxc/400/pending", rows)
    configs = await client.lxc("pve2", 400).configs()
    assert (configs.current.features, configs.pending.features) == (None, "nesting=1")
    assert (configs.current.protection, configs.pending.protection) == (False, True)
    assert [change.option for change in configs.changes] == ["features", "mp0", "protection"]
    assert [disk.id for disk in configs.disks] == ["mp0"]


BAD = {"lots": "x", "a fraction": 2.5, "an object": {"a": 1}, "a list": [1]}


@pytest.mark.parametrize("bad", BAD)
async def test_a_malformed_option_of_a_configuration_costs_itself(client, pve, bad):
    rows = [{"key": "cores", "value": BAD[bad]}, {"key": "name", "value": "web"}]
    pve.answer("GET /nodes/pve1/qemu/100/pending", rows)
    guest = client.qemu("pve1", 100)
    with tolerate_malformed() as left_out:
        both = await guest.configs()
    assert (both.current.name, both.current.cores, both.pending.name) == ("web", None, "web")
    assert left_out == ["cores of web"] * 2
    with pytest.raises(UnexpectedAnswer, match="cores"):
        await guest.configs()


@pytest.mark.parametrize("bad", [{"id": "b", "vmid": [101]}, {"id": "b", "all": "x"}])
async def test_a_malformed_value_of_a_backup_job_costs_itself(client, pve, bad):
    jobs = [{"id": "a", "vmid": "100"}, bad, {"vmid": "102"}]
    pve.answer("GET /cluster/backup", jobs)
    with tolerate_malformed() as left_out:
        answered = await client.cluster.backup_jobs()
    assert [(job.id, job.vmids) for job in answered] == [("a", [100]), ("b", [])]
    assert len(left_out) == 2
    with pytest.raises(UnexpectedAnswer):
        await client.cluster.backup_jobs()


@pytest.mark.parametrize(
    ("command", "read"),
    [("network-get-interfaces", Qemu.agent_network), ("get-fsinfo", Qemu.agent_filesystems)],
)
async def test_a_malformed_row_of_the_guest_agent_costs_itself(client, pve, command, read):
    rows = [{"name": "one"}, None, "x", {"name": ["y"]}, {"name": "two"}]
    pve.answer(f"GET /nodes/pve1/qemu/100/agent/{command}", {"result": rows})
    with tolerate_malformed() as left_out:
        answered = await read(client.qemu("pve1", 100))
    assert [row.name for row in answered] == ["one", "", "two"]
    assert len(left_out) == 3


async def test_a_refusal_of_the_guest_agent_in_any_form_is_one(client, pve):
    for error in ({"class": "X", "desc": "boom"}, "boom"):
        pve.answer("GET /nodes/pve1/qemu/100/agent/get-osinfo", {"result": {"error": error}})
        with pytest.raises(AgentRefused, match="boom"):
            await client.qemu("pve1", 100).agent_os_info()


@pytest.mark.parametrize("empty", [None, []])
async def test_an_empty_answer_is_no_guest_without_disks_and_snapshots(client, pve, empty):
    guest, base = client.qemu("pve1", 100), "GET /nodes/pve1/qemu/100"
    pve.answer(f"{base}/pending", empty)
    pve.answer(f"{base}/snapshot", empty)
    pve.answer(f"{base}/config", {"scsi0": "local:vm-100-disk-0", "digest": "da39"})
    for read in (guest.configs, guest.snapshots, guest.current_snapshot):
        with pytest.raises(UnexpectedAnswer, match="is empty"):
            await read()


async def test_a_failed_restore_leaves_a_guest_without_options(client, pve):
    # "Seen on 9.2.11": its configuration has a digest and nothing else
    guest = client.qemu("pve1", 100)
    pve.answer("GET /nodes/pve1/qemu/100/pending", [])
    pve.answer("GET /nodes/pve1/qemu/100/config", {"digest": "da39"})
    assert (await guest.configs()).current.disks == []


async def test_no_guest_has_thousands_of_snapshots(client, pve):
    rows = [{"name": f"s{number}"} for number in range(1_001)]
    pve.answer("GET /nodes/pve1/qemu/100/snapshot", rows[1:])
    pve.answer("GET /nodes/pve1/qemu/101/snapshot", rows)
    assert len(await client.qemu("pve1", 100).snapshots()) == 1_000
    with pytest.raises(UnexpectedAnswer, match="1,001 snapshots, more than a guest can have"):
        await client.qemu("pve1", 101).snapshots()
