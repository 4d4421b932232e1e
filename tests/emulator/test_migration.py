"""Migration of guests between nodes."""

import pytest

from proxmox_client.emulator import Emulator, Scenario
from proxmox_client.emulator.state.guest import Kind

pytestmark = pytest.mark.anyio
VM = "/nodes/pve1/qemu/100"

LOCAL = """
clusters:
  - name: lab
    nodes: [pve1, pve2]
    storages:
      - {name: local, type: dir}
      - {name: only-one, type: dir, nodes: [pve1]}
    guests:
      - {vmid: 100, name: here, node: pve1, storage: local}
      - {vmid: 101, name: bound, node: pve1, storage: only-one}
"""


async def migrate(admin, **params):
    return await admin.task("POST", f"{VM}/migrate", target="pve2", **params)


async def test_a_running_guest_keeps_running_during_migration(admin):
    before = await admin.get(f"{VM}/status/current")
    status = await migrate(admin, online=1)
    assert status["exitstatus"] == "OK"
    after = await admin.get("/nodes/pve2/qemu/100/status/current")
    assert (after["status"], after["pid"]) == ("running", before["pid"])
    assert (await admin.request("GET", f"{VM}/config")).status_code == 500
    rows = await admin.get("/cluster/resources", type="vm")
    assert next(row["node"] for row in rows if row["vmid"] == 100) == "pve2"


async def test_the_migration_log_shows_progress(admin):
    status = await migrate(admin, online=1)
    log = await admin.log(status["upid"])
    assert any("migration active, transferred" in line for line in log)
    assert "migration finished successfully" in log[-2]
    assert log[-1] == "TASK OK"


@pytest.mark.parametrize(
    ("params", "status", "reason"),
    [
        ({"target": "pve2"}, 500, "can't migrate running VM without --online"),
        ({"target": "pve1", "online": 1}, 400, "Parameter verification failed."),
        ({"target": "nope", "online": 1}, 500, "no such cluster node 'nope'"),
    ],
)
async def test_impossible_migrations_are_refused_at_once(admin, reason_of, params, status, reason):
    response = await admin.request("POST", f"{VM}/migrate", **params)
    assert (response.status_code, reason_of(response)) == (status, reason)


async def test_a_stopped_guest_migrates_offline(admin):
    await admin.task("POST", f"{VM}/status/stop")
    assert (await migrate(admin))["exitstatus"] == "OK"


async def test_a_migration_to_an_offline_node_fails_in_its_task(admin, lab):
    await lab.node_down("pve2")
    task = await admin.task("POST", f"{VM}/migrate", target="pve2", online=1)
    assert task["exitstatus"].startswith("command '/usr/bin/ssh ")
    assert task["exitstatus"].endswith("failed: exit code 255")
    assert "pve2" not in (await admin.get(f"{VM}/migrate"))["allowed_nodes"]


async def test_a_local_device_prevents_migration(admin, reason_of):
    await admin.data("PUT", f"{VM}/config", hostpci0="0000:01:00.0")
    await admin.task("POST", f"{VM}/status/stop")
    assert (await admin.get(f"{VM}/migrate"))["local_resources"] == ["hostpci0"]
    response = await admin.request("POST", f"{VM}/migrate", target="pve2")
    assert "local devices: hostpci0" in reason_of(response)


async def test_a_running_container_migrates_with_a_restart(admin, lab):
    guest = next(
        guest for guest in lab.state.guests.values() if guest.kind is Kind.LXC and guest.running
    )
    target = next(name for name in lab.state.nodes if name != guest.node)
    path = f"/nodes/{guest.node}/lxc/{guest.vmid}/migrate"
    assert (await admin.request("POST", path, target=target)).status_code == 500
    status = await admin.task("POST", path, target=target, restart=1)
    assert (status["exitstatus"], guest.node, guest.status) == ("OK", target, "running")


@pytest.fixture
async def local(open_client):
    async with (
        Emulator(Scenario.load(LOCAL)) as pve,
        open_client(pve["lab"], pve["lab"].token) as client,
    ):
        client.cluster.state.clock.speed = 500
        yield client


async def test_local_disks_are_migrated(local, reason_of):
    check = await local.get(f"{VM}/migrate")
    assert [disk["volid"] for disk in check["local_disks"]] == ["local:100/vm-100-disk-0.qcow2"]
    refused = await local.request("POST", f"{VM}/migrate", target="pve2", online=1)
    assert "with-local-disks" in reason_of(refused)
    await migrate(local, online=1, **{"with-local-disks": 1})
    assert await local.get("/nodes/pve1/storage/local/content", vmid=100) == []
    volumes = await local.get("/nodes/pve2/storage/local/content", vmid=100)
    assert [row["volid"] for row in volumes] == ["local:100/vm-100-disk-0.qcow2"]


async def test_nodes_without_the_storage_are_reported(local):
    check = await local.get("/nodes/pve1/qemu/101/migrate")
    assert check["allowed_nodes"] == []
    assert check["not_allowed_nodes"] == {"pve2": {"unavailable_storages": ["only-one"]}}
