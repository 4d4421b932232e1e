"""The demo cluster prod: five nodes, one of them offline, 120 guests."""

from proxmox_client.emulator.clock import Clock
from proxmox_client.emulator.scenario import prod_details, prod_records
from proxmox_client.emulator.scenario.builder import DAY, Builder
from proxmox_client.emulator.scenario.prod_guests import add_guests
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.load import Load
from proxmox_client.emulator.state.sizes import GIB, TIB

NODES = ("pve01", "pve02", "pve03", "pve04", "pve05")
OFFLINE = "pve05"


def prod(clock: Clock) -> ClusterState:
    """Build the cluster."""
    builder = Builder("prod", "9.2", clock, seed=120)
    _add_nodes(builder)
    _add_storages(builder)
    add_guests(builder)
    node = builder.state.nodes[OFFLINE]
    node.online, node.lost = False, builder.now - 0.4 * DAY
    prod_records.add_records(builder)
    prod_details.add_details(builder)
    return builder.state


def _add_nodes(builder: Builder) -> None:
    for number, name in enumerate(NODES, 1):
        pressure = 9.0 if name == "pve01" else 1.2
        load = Load(phase=number * 31, cpu=0.04, memory=0.05, swing=0.3, pressure=pressure)
        builder.node(name, cpus=64, sockets=2, memory=512 * GIB, load=load, kernel="6.17.4-2-pve")
    failed_disk = builder.state.nodes["pve03"].disks[1]
    failed_disk.health, failed_disk.wearout = "FAILED", 4


def _add_storages(builder: Builder) -> None:
    files, images = "iso,vztmpl,backup,snippets", "images,rootdir"
    builder.storage("local", "dir", files, total=200 * GIB, options={"path": "/var/lib/vz"})
    builder.storage("local-zfs", "zfspool", images, total=7 * TIB, options={"pool": "rpool/data"})
    builder.storage("ceph-vm", "rbd", images, shared=True, total=96 * TIB, options={"pool": "vm"})
    nfs = {"server": "10.20.0.60"}
    builder.storage("nfs-iso", "nfs", "iso,vztmpl", shared=True, total=2 * TIB, options=nfs)
    builder.storage("nfs-archive", "nfs", "backup", shared=True, total=30 * TIB, options=nfs)
    backup_server = {"server": "10.20.0.70", "datastore": "main", "username": "pve@pbs"}
    builder.storage("pbs-main", "pbs", "backup", shared=True, total=48 * TIB, options=backup_server)
