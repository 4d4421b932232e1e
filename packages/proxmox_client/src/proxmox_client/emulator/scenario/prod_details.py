"""Details of the demo cluster prod that its users ask about, added after everything else."""

from typing import Any, Final

from proxmox_client.emulator.scenario import history
from proxmox_client.emulator.scenario.builder import Builder
from proxmox_client.emulator.scenario.prod_records import USERS
from proxmox_client.emulator.state.firewall import RuleSet
from proxmox_client.emulator.state.guest import REMOVAL
from proxmox_client.emulator.state.node import Update
from proxmox_client.emulator.state.sizes import GIB

CONFIG: Final[dict[int, dict[str, Any]]] = {
    122: {"description": "Reporting database\nOwner: data team"},
    171: {"net1": "virtio=BC:24:11:0A:AB:71,bridge=vmbr0,tag=40"},
    175: {"ide2": "nfs-iso:iso/virtio-win-0.1.271.iso,media=cdrom,size=690M"},
    177: {"hostpci0": "0000:65:00.0,pcie=1", "machine": "q35"},
    400: {"startup": "order=1,up=30", "net1": "virtio=BC:24:11:0A:B4:00,bridge=vmbr0,tag=30"},
    401: {"startup": "order=2", "protection": 1},
    331: {"net0": "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:0A:03:31,ip=10.20.9.31/24,gw=10.20.9.1"},
    333: {"env": "POSTGRES_PASSWORD=emulated\0TZ=Europe/Vienna\0LOG_LEVEL=info"},
}
"""Options by VMID: notes, a VLAN, an ISO image, a PCI device, start order, protection, an address
and the environment of a container."""
PCI_DEVICES: Final = (
    {
        "id": "0000:65:00.0",
        "class": "0x030000",
        "vendor": "0x10de",
        "vendor_name": "NVIDIA Corporation",
        "device": "0x2235",
        "device_name": "GA102GL [A40]",
        "subsystem_vendor": "0x10de",
        "subsystem_device": "0x145a",
        "iommugroup": 27,
        "mdev": 1,
    },
    {
        "id": "0000:c1:00.0",
        "class": "0x020000",
        "vendor": "0x15b3",
        "vendor_name": "Mellanox Technologies",
        "device": "0x1015",
        "subsystem_vendor": "0x15b3",
        "subsystem_device": "0x0016",
        "iommugroup": 41,
    },
)
"""PCI devices of the node of guest 177; the name of the second is not known."""
PRIVILEGED: Final = 302
PENDING: Final = 171
WITH_UNUSED_DISK: Final = 168
NOT_BACKED_UP_DISK: Final = 122
REFUSED_COMMANDS: Final = {161: frozenset({"get-osinfo"})}
INCOMPLETE_SNAPSHOT: Final = 176
UPDATES: Final = {
    "pve01": ("openssl", "pve-manager"),
    "pve02": ("openssl", "pve-manager", "pve-qemu-kvm", "proxmox-kernel-6.17.9-1-pve-signed"),
    "pve04": ("pve-firmware",),
}
"""Packages of which nodes have updates; those on pve02 include a new kernel."""
AVAILABLE: Final = {
    update.package: update
    for update in (
        Update("openssl", "3.5.4-1~deb13u2", "3.5.4-1~deb13u1", "Debian", "Secure Sockets Layer"),
        Update("pve-manager", "9.2.12", "9.2.11", title="Proxmox VE management tools"),
        Update("pve-qemu-kvm", "10.1.2-5", "10.1.2-4", title="Full virtualization"),
        Update("pve-firmware", "3.17-3", "3.17-2", title="Binary firmware code"),
        Update("proxmox-kernel-6.17.9-1-pve-signed", "6.17.9-1", title="Proxmox kernel image"),
    )
}
WAITS_FOR_REBOOT: Final = {"pve03": "6.17.9-1-pve"}
"""The newest installed kernel of nodes that run an older one."""
FULL_DISKS: Final = {105: 0.93, 171: 0.88}
"""The used share of the boot disk by VMID, as the guest agent reports it."""
TASKS: Final = (
    ("pve01", "imgdel", "nfs-iso", "alice@pve", 100, 2),
    ("pve02", "qmdestroy", "190", "bob@pve", 130, 6),
    ("pve03", "qmdelsnapshot", "150", "alice@pve", 160, 12),
    ("pve02", "qmconfig", "171", "carol@pve", 170, 1),
)
"""Successful tasks that removed or changed something: node, type, ID, user, hours ago, seconds."""


def add_details(builder: Builder) -> None:
    """Add the details; the guests and records must exist."""
    guests = builder.state.guests
    for vmid, options in CONFIG.items():
        guests[vmid].config.update(options)
    guests[PRIVILEGED].config["unprivileged"] = 0
    guests[PENDING].pending["memory"] = "24576"
    guests[PENDING].removals["net1"] = REMOVAL
    disk = guests[NOT_BACKED_UP_DISK].config
    disk["scsi1"] = f"{disk['scsi1']},backup=0"
    _add_unused_disks(builder)
    for vmid, commands in REFUSED_COMMANDS.items():
        if agent := guests[vmid].agent:
            agent.refused = commands
    builder.state.nodes[guests[177].node].pci_devices = [dict(each) for each in PCI_DEVICES]
    for node, packages in UPDATES.items():
        builder.state.nodes[node].updates = [AVAILABLE[package] for package in packages]
    for node, kernel in WAITS_FOR_REBOOT.items():
        builder.state.nodes[node].newest_kernel = kernel
    for vmid, used in FULL_DISKS.items():
        if agent := guests[vmid].agent:
            agent.disk_used = used
    builder.snapshot(guests[INCOMPLETE_SNAPSHOT], "pre-upgrade", 2, "interrupted", state="prepare")
    for node, type_, id_, user, hours_ago, seconds in TASKS:
        history.add_task(builder, node, type_, id_, user, hours_ago=hours_ago, seconds=seconds)
    _add_firewall(builder)
    history.add_log(builder, USERS)


def _add_firewall(builder: Builder) -> None:
    """Add a firewall of the cluster, a security group, and rules of a node and of two guests."""
    ssh = {"type": "in", "action": "ACCEPT", "macro": "SSH", "source": "+admins", "enable": 1}
    web = {"type": "in", "action": "ACCEPT", "proto": "tcp", "dport": "80,443", "enable": 1}
    old = {"type": "in", "action": "ACCEPT", "proto": "tcp", "dport": "8080", "enable": 0}
    ban = {"type": "in", "action": "DROP", "source": "192.0.2.0/24", "enable": 1, "log": "info"}
    of_group = {"type": "group", "action": "webserver", "enable": 1}
    builder.state.firewalls |= {
        "": RuleSet(
            options={"enable": 1, "policy_in": "DROP"},
            rules=[{**ssh, "comment": "administrators"}, ban],
            groups={"webserver": [web, {**old, "comment": "until the move"}]},
            ip_sets={"admins": [{"cidr": "10.20.9.0/24"}]},
        ),
        "pve01": RuleSet(rules=[{**ssh, "iface": "vmbr0"}]),
        "/vms/105": RuleSet(options={"enable": 1}, rules=[of_group, {**ssh, "enable": 0}]),
        "/vms/200": RuleSet(
            options={"enable": 0, "policy_in": "ACCEPT"},
            rules=[{"type": "in", "action": "ACCEPT", "macro": "SMTP", "enable": 1}],
        ),
    }


def _add_unused_disks(builder: Builder) -> None:
    """Add a disk that a guest lists as unused, and one that no configuration mentions."""
    guest = builder.state.guests[WITH_UNUSED_DISK]
    for number, vmid in ((7, guest.vmid), (0, 190)):
        name = f"vm-{vmid}-disk-{number}"
        size = 8 * GIB
        builder.volume("ceph-vm", guest.node, name, "images", size, format="raw", vmid=vmid)
    guest.config["unused0"] = f"ceph-vm:vm-{guest.vmid}-disk-7"
