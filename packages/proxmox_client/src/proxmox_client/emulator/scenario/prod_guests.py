"""The guests of the demo cluster prod."""

from typing import Any, Final

from proxmox_client.emulator.scenario.builder import Builder
from proxmox_client.emulator.state.guest import Agent, Guest
from proxmox_client.emulator.state.jobs import Pool

SERVICES: Final = (
    ("web", "production", 2, 4, 40, 10),
    ("api", "production", 4, 8, 40, 10),
    ("db", "production", 8, 64, 500, 8),
    ("cache", "production", 2, 16, 32, 6),
    ("queue", "production", 4, 16, 80, 5),
    ("search", "production", 8, 48, 300, 5),
    ("k8s-node", "platform", 8, 32, 120, 12),
    ("build", "platform", 8, 16, 200, 6),
    ("staging-web", "staging", 2, 4, 40, 8),
    ("staging-db", "staging", 4, 16, 120, 4),
    ("win-app", "office", 4, 16, 120, 6),
)
"""Name, pool, cores, memory and disk in GiB, number of guests: 80 in total."""

NAMED: Final[dict[int, dict[str, Any]]] = {
    101: {"name": "db-primary", "node": "pve01", "cpu": 0.86, "cores": 16, "memory": 128},
    105: {"name": "web-frontend", "node": "pve01", "cpu": 0.21, "cores": 4, "memory": 8},
    150: {"name": "legacy-erp", "node": "pve03", "cpu": 0.97, "cores": 4, "memory": 16},
    200: {"name": "mail-gateway", "node": "pve02", "cpu": 0.14, "cores": 4, "memory": 8},
}
BUSY: Final = frozenset({113, 127, 141})
"""Further guests with a high CPU load."""

CONTAINERS: Final = (
    *("dns-1", "dns-2", "ntp-1", "ntp-2", "proxy-1", "proxy-2", "vpn-1", "vpn-2"),
    *("prometheus", "alertmanager", "grafana", "loki", "tempo", "blackbox"),
    *("gitlab-runner-1", "gitlab-runner-2", "gitlab-runner-3", "registry", "nexus", "sonarqube"),
    *("wiki", "chat", "status-page", "ldap-1", "ldap-2", "syslog", "netbox", "vault"),
    *("apt-mirror", "tftp", "print-server", "unifi", "homepage", "uptime"),
)
NODES: Final = ("pve01", "pve02", "pve03", "pve04", "pve05")


def add_guests(builder: Builder) -> None:
    """Add 80 VMs of services (4 of them in NAMED), 34 containers, 4 more VMs and 2 templates."""
    numbers = [*range(100, 179), 200]
    plan = [service for service in SERVICES for _ in range(service[5])]
    counts: dict[str, int] = {}
    for position, (vmid, service) in enumerate(zip(numbers, plan, strict=True)):
        counts[service[0]] = counts.get(service[0], 0) + 1
        _add_vm(builder, vmid, position, service, counts[service[0]])
    for position, name in enumerate(CONTAINERS):
        _add_container(builder, 300 + position, position, name)
    for vmid, name in (
        (400, "pfsense-a"),
        (401, "pfsense-b"),
        (402, "san-witness"),
        (403, "jumphost"),
    ):
        node = NODES[vmid % 4]
        config = {"tags": "infra", "ostype": "other"}
        builder.vm(vmid, name, node, storage="local-zfs", disks=(16,), config=config)
    cloud_init = {"ide2": "ceph-vm:vm-9000-cloudinit,media=cdrom", "ipconfig0": "ip=dhcp"}
    debian = Agent(os_name="Debian GNU/Linux 13 (trixie)", kernel="6.12.48+deb13-amd64")
    for vmid, name, agent, config in (
        (9000, "tpl-debian-13", debian, cloud_init),
        (9001, "tpl-win2025", None, {}),
    ):
        builder.vm(
            vmid,
            name,
            "pve01",
            storage="ceph-vm",
            disks=(32,),
            config={"template": 1, **config},
            agent=agent,
            running=False,
        )
    builder.volume(
        "ceph-vm", "pve01", "vm-9000-cloudinit", "images", 4 << 20, format="raw", vmid=9000
    )
    _add_pools(builder)


def _add_vm(
    builder: Builder,
    vmid: int,
    position: int,
    service: tuple[str, str, int, int, int, int],
    number: int,
) -> None:
    base, pool, cores, memory, disk, _ = service
    named = NAMED.get(vmid, {})
    node = named.get("node", NODES[position % 5])
    stopped = vmid not in NAMED and position % 11 == 7
    windows = base == "win-app"
    load = builder.load(vmid)
    cpu = named.get("cpu", 0.84 if vmid in BUSY else None)
    if cpu is not None:
        load.cpu, load.swing, load.pressure = cpu, 0.03, 22.0 if cpu > 0.7 else 1.0
    guest = builder.vm(
        vmid,
        named.get("name", f"{base}-{number:02d}"),
        node,
        storage="ceph-vm" if vmid in NAMED or position % 4 else "local-zfs",
        disks=(disk, 200) if base == "db" else (disk,),
        config={
            "cores": named.get("cores", cores),
            "memory": str(named.get("memory", memory) * 1024),
            "tags": ";".join(sorted({pool, base.split("-")[-1]})),
            "ostype": "win11" if windows else "l26",
            "onboot": 1,
        },
        running=not stopped,
        agent=_agent(vmid, windows=windows),
        load=load,
    )
    if position % 37 == 20:
        guest.paused = guest.running


def _agent(vmid: int, *, windows: bool) -> Agent | None:
    if vmid % 6 == 4:
        return None
    address = (f"10.30.{vmid // 100}.{vmid % 100 + 10}",)
    if windows:
        return Agent("mswindows", "Windows Server 2022 Standard", "20348", address)
    return Agent(addresses=address, answers=vmid != 150)


def _add_container(builder: Builder, vmid: int, position: int, name: str) -> None:
    memory = (512, 1024, 2048, 4096)[position % 4]
    builder.container(
        vmid,
        name,
        NODES[position % 5],
        storage="local-zfs" if position % 3 == 0 else "ceph-vm",
        disk=(8, 16, 32)[position % 3],
        config={"memory": memory, "cores": 1 + position % 4, "tags": "infra", "onboot": 1},
        running=position % 9 != 5,
    )


def _add_pools(builder: Builder) -> None:
    comments = {
        "production": "Customer-facing services",
        "platform": "Kubernetes and builds",
        "staging": "Where releases are tried",
        "office": "Internal Windows applications",
        "infra": "What everything else needs",
    }
    for poolid, comment in comments.items():
        members = {guest.vmid for guest in builder.state.guests.values() if _in_pool(guest, poolid)}
        storages = {"nfs-archive"} if poolid == "production" else set()
        builder.state.pools[poolid] = Pool(poolid, comment, members, storages)


def _in_pool(guest: Guest, poolid: str) -> bool:
    return poolid in str(guest.config.get("tags", "")).split(";")
