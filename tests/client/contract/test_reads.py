"""Every read of the client, against the emulator of each version."""

import pytest

from proxmox_client import Forbidden, ResponseError

pytestmark = pytest.mark.anyio

# reads that return rows in a lab without backup jobs, HA and pools
FULL = {
    "nodes": lambda c: c.nodes(),
    "storages": lambda c: c.storages(),
    "cluster.tasks": lambda c: c.cluster.tasks(),
    "access.permissions": lambda c: c.access.permissions(),
    "access.users": lambda c: c.access.users(),
    "access.tokens": lambda c: c.access.tokens("mcp@pve"),
    "access.roles": lambda c: c.access.roles(),
    "access.acl": lambda c: c.access.acl(),
    "access.realms": lambda c: c.access.realms(),
    "cluster.ha_status": lambda c: c.cluster.ha_status(),
    "cluster.not_backed_up": lambda c: c.cluster.not_backed_up(),
    "cluster.metrics": lambda c: c.cluster.metrics(),
    "node.rrd": lambda c: c.node("pve1").rrd("hour"),
    "node.disks": lambda c: c.node("pve2").disks(),
    "node.network": lambda c: c.node("pve1").network(),
    "node.qemus": lambda c: c.node("pve1").qemus(),
    "node.lxcs": lambda c: c.node("pve2").lxcs(),
    "node.storages": lambda c: c.node("pve3").storages(),
    "node.tasks": lambda c: c.node("pve1").tasks(),
    "qemu.pending": lambda c: c.qemu("pve1", 100).pending(),
    "qemu.rrd": lambda c: c.qemu("pve1", 100).rrd("day", "MAX"),
    "lxc.pending": lambda c: c.lxc("pve2", 104).pending(),
    "lxc.rrd": lambda c: c.lxc("pve2", 104).rrd("week"),
    "lxc.interfaces": lambda c: c.lxc("pve2", 104).interfaces(),
    "agent.network": lambda c: c.qemu("pve1", 100).agent_network(),
    "storage.content": lambda c: c.storage("pve1", "shared").content("images"),
    "storage.rrd": lambda c: c.storage("pve1", "shared").rrd("month"),
}
EMPTY = {
    "pools": lambda c: c.pools(),
    "cluster.backup_jobs": lambda c: c.cluster.backup_jobs(),
    "cluster.ha_resources": lambda c: c.cluster.ha_resources(),
    "cluster.replications": lambda c: c.cluster.replications(),
    "access.groups": lambda c: c.access.groups(),
    "node.replications": lambda c: c.node("pve1").replications(),
    "qemu.snapshots": lambda c: c.qemu("pve1", 100).snapshots(),
    "lxc.snapshots": lambda c: c.lxc("pve2", 104).snapshots(),
    "storage.content": lambda c: c.storage("pve1", "shared").content("backup", 100),
}
READS = FULL | {f"no {name}": read for name, read in EMPTY.items()}
# reads that need no privilege, and reads that are Forbidden without one; others return no rows
PUBLIC = {"nodes", "access.roles", "access.realms", "node.network"}
FORBIDDEN = {
    "": {"access.tokens"},
    "/": {"cluster.ha_status", "cluster.metrics", "cluster.not_backed_up", "no cluster.backup_jobs"}
    | {"no cluster.ha_resources"},
    "/nodes/": {"node.rrd", "node.disks"},
    "/vms/": {"qemu.pending", "qemu.rrd", "lxc.pending", "lxc.rrd", "lxc.interfaces"}
    | {"agent.network", "no qemu.snapshots", "no lxc.snapshots"},
    "/storage/": {"storage.content", "storage.rrd", "no storage.content"},
}


async def test_every_account_reads_everything(account, client_as):
    client = client_as(account)
    await (await client.qemu("pve1", 100).power("reboot")).outcome()
    full = {name: bool(await read(client)) for name, read in FULL.items()}
    empty = {name: await read(client) for name, read in EMPTY.items()}
    assert [name for name, has_rows in full.items() if not has_rows] == []
    assert [name for name, rows in empty.items() if rows != []] == []


@pytest.mark.parametrize("name", READS)
async def test_an_unprivileged_account_gets_forbidden_or_no_rows(name, client_as, unprivileged):
    # Quirks 10 and 34: some calls are forbidden, others leave rows out.
    client = client_as(unprivileged)
    path = next((path for path, names in FORBIDDEN.items() if name in names), None)
    if path is None:
        assert bool(await READS[name](client)) is (name in PUBLIC)
        return
    with pytest.raises(Forbidden) as caught:
        await READS[name](client)
    assert (caught.value.path or "").startswith(path)
    assert bool(caught.value.privileges) is bool(path)


async def test_the_cluster_is_described(client, version, lab):
    current, resources = await client.version(), await client.cluster.resources()
    status, options = await client.cluster.status(), await client.cluster.options()
    assert (current.release, current.number[:2]) == (version, tuple(map(int, version.split("."))))
    assert sorted(guest.vmid for guest in resources.guests) == list(range(100, 112))
    assert {node.node for node in resources.nodes} == {"pve1", "pve2", "pve3"}
    assert {storage.storage for storage in resources.storages} == {"local", "shared"}
    assert (status.name, status.quorate, len(status.members)) == ("lab", True, 3)
    assert options.mac_prefix == "BC:24:11"
    assert await client.cluster.nextid() == 112


async def test_resources_can_be_filtered_by_type(client):
    vms, nodes = await client.cluster.resources("vm"), await client.cluster.resources("node")
    assert (len(vms.guests), len(vms.nodes), len(nodes.nodes), len(nodes.guests)) == (12, 0, 3, 0)


async def test_the_status_of_a_node_is_decoded(client, version):
    status, clock = await client.node("pve2").status(), await client.node("pve2").time()
    assert status.pve_version.startswith(f"pve-manager/{version}")
    assert 0 <= status.cpu <= 1
    assert 0 < status.memory.used < status.memory.total
    assert (len(status.load_average), status.uptime > 0, clock.time > 0) == (3, True, True)
    assert (status.memory.available is None) is (version == "8.4")


async def test_a_virtual_machine_is_described(client, version):
    guest = await client.guest(100)
    config, status, os = await guest.config(), await guest.status(), await guest.agent_os_info()
    await guest.agent_ping()
    assert (config.name, config.memory_mb, config.agent_enabled) == ("web-100", 4096, True)
    assert (config.disks[0].storage, config.networks[0].bridge) == ("shared", "vmbr0")
    assert (status.status, status.qmp_status, status.vmid) == ("running", "running", 100)
    assert (status.memory_host is None) is (version == "8.4")
    assert (status.pressure_cpu_some is None) is (version == "8.4")
    assert os.id == "debian"


async def test_a_container_is_described(client, version):
    guest = await client.guest(104)
    config, status = await guest.config(), await guest.status()
    assert (config.name, config.memory_mb, config.disks[0].mount_point) == ("build-104", 512, "/")
    assert (status.status, status.swap_max) == ("running", 512 * 1024**2)
    assert (status.pressure_cpu_some is None) is (version == "8.4")


async def test_migrate_check_reports_allowed_nodes(client, version):
    # Quirk 44: for containers only from 9.0.
    check = await client.qemu("pve1", 100).migrate_check("pve2")
    assert (check.running, "pve2" in check.allowed_nodes, check.local_resources) == (True, True, [])
    container = client.lxc("pve2", 104)
    if version == "8.4":
        with pytest.raises(ResponseError, match="not implemented"):
            await container.migrate_check("pve1")
    else:
        assert (await container.migrate_check("pve1")).running


async def test_ha_rules_exist_from_9_0(client, version):
    # Quirk 26.
    if version == "8.4":
        with pytest.raises(ResponseError, match="not implemented"):
            await client.cluster.ha_rules()
    else:
        assert await client.cluster.ha_rules() == []


async def test_an_account_is_described(client):
    user = await client.access.user("mcp@pve")
    assert (user.userid, user.enable) == ("mcp@pve", True)
    assert (await client.access.permissions("/vms/100"))["/vms/100"]["VM.Audit"] in (True, False)


async def test_a_storage_has_a_size_and_content(client):
    storage = client.storage("pve1", "shared")
    status, images = await storage.status(), await storage.content("images")
    assert (status.storage, status.shared, status.active) == ("shared", True, True)
    assert 0 < status.used < status.total
    assert {image.vmid for image in images} >= {100, 101}
    assert (await storage.volume(images[0].volid)).size == images[0].size


async def test_a_raw_request_is_answered(client):
    assert (await client.raw("GET", "/nodes/pve1/qemu/100/config"))["name"] == "web-100"
