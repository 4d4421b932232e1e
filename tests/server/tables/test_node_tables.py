"""Tables of nodes, compared with the emulator's state and with recordings."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from proxmox_client.api.hardware import Disk, NetworkInterface, PciDevice
from proxmox_client.api.nodes import NodeStatus
from proxmox_client.api.smart import Smart
from proxmox_client.api.software import Certificate, Package, Service, Subscription
from proxmox_client.emulator.scenario import prod_details
from pvemcp_server.access.model import Resources
from pvemcp_server.tables import load, node_hardware, node_packages, node_services, tables
from pvemcp_server.tables.registry import LoadRequest
from pvemcp_server.tables.smart import _row as smart_row

pytestmark = pytest.mark.anyio

PATHS = {
    "available_templates": "aplinfo",
    "bridges": "network",
    "certificates": "certificates/info",
    "node_versions": "apt/versions",
    "services": "services",
    "subscriptions": "subscription",
    "pci_devices": "hardware/pci",
    "updates": "apt/update",
    "smart": "disks/smart",
    "zfs_pools": "disks/zfs",
}
NODE_TABLES = list(PATHS)
ONLINE = ["pve01", "pve02", "pve03", "pve04"]
WITH_ROWS = {"pci_devices": "pve03"}
"""The node of tables that have no rows of pve02."""


def rows(name, cluster, *nodes):
    return load(tables()[name], cluster, LoadRequest(nodes=frozenset(nodes)))


@pytest.mark.parametrize("name", NODE_TABLES)
async def test_the_offline_node_is_noted(open_cluster, name):
    cluster = open_cluster()
    answered = await rows(name, cluster)
    assert {row.node for row in answered} <= set(ONLINE)
    assert list(cluster.notes) == ["Offline on prod, so missing here: pve05."]


@pytest.mark.parametrize("name", NODE_TABLES)
async def test_a_role_for_one_node_asks_that_node_only(open_cluster, pve, name):
    node = WITH_ROWS.get(name, "pve02")
    fault = pve["prod"].fault("error", path=f"/nodes/(?!{node}/)", message="asked")
    cluster = open_cluster("prod", Resources(nodes=frozenset({node})))
    try:
        answered = await rows(name, cluster)
    finally:
        pve["prod"].faults.remove(fault)
    assert {row.node for row in answered} == {node}
    assert list(cluster.notes) == []
    assert await rows(name, open_cluster("prod", Resources(vmids=frozenset({101})))) == []


@pytest.mark.parametrize("name", NODE_TABLES)
async def test_a_missing_privilege_is_a_note_with_its_name(open_cluster, pve, name):
    cluster, path = open_cluster(), f"/nodes/pve02/{PATHS[name]}"
    fault = pve["prod"].fault("forbidden", path=path, message="/nodes/pve02, Sys.Modify")
    try:
        assert await rows(name, cluster, "pve02") == []
    finally:
        pve["prod"].faults.remove(fault)
    note = next(iter(cluster.notes))  # the same for each disk
    assert note.startswith("Missing from prod: ")
    assert "lacks Sys.Modify on /nodes/pve02" in note


async def test_versions_say_which_node_waits_for_a_reboot(open_cluster, pve):
    versions = {row.node: row for row in await rows("node_versions", open_cluster())}
    assert sorted(versions) == ONLINE
    assert {row.pve_version for row in versions.values()} == {"9.2.11"}
    assert {row.kernel for row in versions.values()} == {"6.17.4-2-pve"}
    assert [name for name, row in versions.items() if row.reboot_needed] == ["pve03"]
    assert versions["pve03"].newest_kernel == "6.17.9-1-pve"
    assert "pve-manager=9.2.11" in versions["pve01"].packages
    [lab] = await rows("node_versions", open_cluster("home-lab"))
    assert (lab.pve_version, lab.kernel, lab.reboot_needed) == ("8.4.14", "6.8.12-15-pve", False)


async def test_updates_are_those_of_each_node(open_cluster):
    answered = await rows("updates", open_cluster())
    assert {(row.node, row.package) for row in answered} == {
        (node, package) for node, packages in prod_details.UPDATES.items() for package in packages
    }
    kernel = next(row for row in answered if row.package.startswith("proxmox-kernel"))
    assert (kernel.installed, kernel.version) == (None, "6.17.9-1")
    openssl = next(row for row in answered if row.package == "openssl")
    assert (openssl.installed, openssl.version, openssl.origin) == (
        "3.5.4-1~deb13u1", "3.5.4-1~deb13u2", "Debian",
    )  # fmt: skip


async def test_a_service_that_is_stopped_does_not_run(open_cluster, pve):
    node = pve["prod"].state.nodes["pve02"]
    node.stopped.add("pvestatd")
    try:
        answered = await rows("services", open_cluster(), "pve02")
    finally:
        node.stopped.clear()
    stopped = [row for row in answered if not row.running]
    assert [(row.service, row.state, row.active_state) for row in stopped] == [
        ("pvestatd", "dead", "inactive")
    ]
    assert len(answered) == 14


async def test_certificates_are_those_that_nodes_serve(open_cluster, pve):
    certificates = {row.node: row for row in await rows("certificates", open_cluster())}
    assert sorted(certificates) == ONLINE
    for name, row in certificates.items():
        served = pve["prod"].state.nodes[name].certificate
        assert row.fingerprint == served.fingerprint
        assert row.not_after == datetime.fromtimestamp(served.expires, UTC)
        assert row.days_left == (row.not_after - datetime.now(UTC)).days
        assert name in row.names


async def test_a_certificate_that_has_ended_has_negative_days(open_cluster, pve):
    node = pve["prod"].state.nodes["pve02"]
    served = node.certificate
    ended = (datetime.now(UTC) - timedelta(days=3, hours=1)).timestamp()
    node.certificate = replace(served, expires=int(ended))
    try:
        [row] = await rows("certificates", open_cluster(), "pve02")
    finally:
        node.certificate = served
    assert row.days_left == -4


async def test_subscriptions_have_their_end_and_no_key(open_cluster, pve):
    node = pve["prod"].state.nodes["pve02"]
    node.subscription = {
        "status": "active", "level": "b", "productname": "Proxmox VE Basic",
        "sockets": 2, "nextduedate": "2027-03-01", "regdate": "2026-03-01 00:00:00",
        "checktime": 1_795_000_000, "key": "pve2b-0123456789", "serverid": "AB" * 16,
    }  # fmt: skip
    try:
        answered = {row.node: row for row in await rows("subscriptions", open_cluster())}
    finally:
        node.subscription = {}
    assert {name: row.status for name, row in answered.items()} == {
        "pve01": "notfound", "pve02": "active", "pve03": "notfound", "pve04": "notfound",
    }  # fmt: skip
    row = answered["pve02"]
    assert (row.level, row.sockets, row.next_due) == ("b", 2, datetime(2027, 3, 1, tzinfo=UTC))
    assert row.days_left == (row.next_due - datetime.now(UTC)).days
    assert "0123456789" not in str(row)


async def test_a_pool_with_a_failed_disk_is_degraded(open_cluster, pve):
    pools = {row.node: row for row in await rows("zfs_pools", open_cluster())}
    assert {name: row.health for name, row in pools.items()} == {
        "pve01": "ONLINE", "pve02": "ONLINE", "pve03": "DEGRADED", "pve04": "ONLINE",
    }  # fmt: skip
    storage = pve["prod"].state.storages["local-zfs"]
    for node, row in pools.items():
        used = storage.used(node)
        assert (row.name, row.size, row.used) == ("rpool", storage.total, used)
        assert row.free == storage.total - used
        assert row.usage_percentage == round(used / storage.total * 100, 1)
    assert await rows("zfs_pools", open_cluster("home-lab")) == []


async def test_a_failed_disk_reports_its_errors(open_cluster, pve):
    reports = {row.device: row for row in await rows("smart", open_cluster(), "pve03")}
    disks = {disk.device: disk for disk in pve["prod"].state.nodes["pve03"].disks}
    assert {name: row.health for name, row in reports.items()} == {
        name: disk.health for name, disk in disks.items()
    }
    [failed] = [row for row in reports.values() if row.health == "FAILED"]
    disk = disks[failed.device]
    assert (failed.serial, failed.model) == (disk.serial, disk.model)
    if disk.kind == "nvme":
        assert (failed.media_errors, failed.critical_warning, failed.type) == (412, 4, "text")
        assert failed.percentage_used == 96
    else:
        assert (failed.reallocated_sectors, failed.pending_sectors) == (412, 103)
        assert failed.failing == ["Reallocated_Sector_Ct"]
    assert all(row.power_on_hours > 12_000 and row.temperature > 30 for row in reports.values())


async def test_disks_have_what_their_kind_reports(open_cluster, pve):
    reports = await rows("smart", open_cluster())
    disks = {
        (node.name, disk.device): disk
        for node in pve["prod"].state.nodes.values()
        for disk in node.disks
    }
    assert len(reports) == sum(node in ONLINE for node, _ in disks)
    for row in reports:
        nvme = disks[row.node, row.device].kind == "nvme"
        assert (row.percentage_used is None, row.crc_errors is None) == (not nvme, nvme)
        assert bool(row.attributes) == (not nvme)


def test_raw_values_of_disks_have_texts_around_their_numbers():
    raws = {"Power_On_Hours": "12345h+06m+11.052s", "Temperature_Celsius": "33 (Min/Max 18/45)"}
    attributes = [{"name": name, "raw": raw, "fail": "-"} for name, raw in raws.items()]
    answer = msgspec.convert({"health": "OK", "attributes": attributes}, Smart)
    row = smart_row("pve1", Disk(device="/dev/sda"), answer)
    assert (row.power_on_hours, row.temperature, row.failing) == (12345, 33, [])


def test_a_disk_without_smart_has_its_health_only(pve_recordings):
    lines = (pve_recordings / "exchanges-9.2-more.jsonl").read_text().splitlines()
    answer = next(
        exchange["body"]["data"]
        for exchange in map(json.loads, lines)
        if exchange["path"].endswith("/disks/smart") and exchange["status"] == 200
    )
    row = smart_row("pve1", Disk(device="/dev/vda"), msgspec.convert(answer, Smart))
    assert (row.health, row.type, row.power_on_hours, row.attributes) == ("UNKNOWN", None, None, [])


async def test_bridges_have_their_ports_and_address(open_cluster, pve):
    bridges = {row.node: row for row in await rows("bridges", open_cluster())}
    assert sorted(bridges) == ONLINE
    address = pve["prod"].state.nodes["pve02"].address
    row = bridges["pve02"]
    assert (row.name, row.type, row.ports) == ("vmbr0", "bridge", ["eno1"])
    assert (row.address, row.active, row.vlan_aware) == (f"{address}/24", True, False)


async def test_pci_devices_have_names_or_numbers(open_cluster):
    card, adapter = await rows("pci_devices", open_cluster(), "pve03")
    assert (card.id, card.kind, card.vendor) == ("0000:65:00.0", "display", "NVIDIA Corporation")
    assert (card.device, card.iommu_group, card.mediated) == ("GA102GL [A40]", 27, True)
    assert (adapter.device, adapter.device_id, adapter.kind) == ("0x1015", "0x1015", "network")


def test_an_open_vswitch_bridge_has_its_ports():
    interface = NetworkInterface(iface="vmbr1", type="OVSBridge", ovs_ports="eno2 eno3")
    assert node_hardware._bridge("pve1", interface).ports == ["eno2", "eno3"]


def test_text_in_place_of_a_due_date_is_no_date():
    row = node_services._subscription("n", Subscription(next_due_date="never"))
    assert (row.next_due, row.days_left) == (None, None)


@pytest.mark.parametrize(
    ("running", "installed", "needed"),
    [
        ("6.8.12-9-pve", ["proxmox-kernel-6.8.12-15-pve-signed"], True),
        ("6.8.12-15-pve", ["proxmox-kernel-6.8.12-9-pve-signed"], False),
        ("5.15.158-2-pve", ["pve-kernel-5.15.158-2-pve", "pve-kernel-5.15.30-2-pve"], False),
        ("6.17.4-2-pve", ["proxmox-kernel-helper"], None),
    ],
)
def test_a_reboot_is_needed_for_a_newer_kernel_only(running, installed, needed):
    status = msgspec.convert({"current-kernel": {"release": running}}, NodeStatus)
    packages = [Package(package=name, version="1", state="Installed") for name in installed]
    assert node_packages._version("pve1", status, packages).reboot_needed is needed


MAKE = {
    "hardware/pci": (list[PciDevice], node_hardware._device),
    "network": (list[NetworkInterface], node_hardware._bridge),
    "apt/update": (list[Package], node_packages._update),
    "services": (list[Service], node_services._service),
    "certificates/info": (list[Certificate], node_services._certificate),
}


@pytest.mark.parametrize("path", MAKE)
def test_recorded_answers_are_rows(pve_recordings, path):
    answer, make = MAKE[path]
    made = []
    for version in ("8.4", "9.1", "9.2", "9.2-more"):
        for line in (pve_recordings / f"exchanges-{version}.jsonl").read_text().splitlines():
            exchange = json.loads(line)
            if exchange["path"].endswith(f"/{path}") and exchange["status"] == 200:
                listed = msgspec.convert(exchange["body"]["data"], answer, strict=False)
                made += [make("pve1", each) for each in listed]
    assert made
    first = {
        "hardware/pci": {"id": "0000:00:01.0", "device_id": "0x1045", "iommu_group": None},
        "network": {"node": "pve1"},
        "apt/update": {"package": "dpkg", "installed": "1.21.22", "version": "1.21.23"},
        "services": {"service": "chrony", "running": True, "unit_state": "enabled"},
        "certificates/info": {"filename": "pve-root-ca.pem", "key_bits": 4096, "names": []},
    }[path]
    assert {name: getattr(made[0], name) for name in first} == first
