"""Generator of a cluster of any size."""

from proxmox_client.emulator.clock import Clock
from proxmox_client.emulator.scenario.builder import Builder
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import Agent
from proxmox_client.emulator.state.sizes import GIB, TIB

_ROLES = ("web", "db", "app", "cache", "build", "mail", "proxy", "queue", "log", "test")


def generate_cluster(
    name: str, clock: Clock, *, version: str, nodes: int, guests: int, seed: int
) -> ClusterState:
    """Build nodes pve1, pve2 … with guests from VMID 100.

    Three of four guests run, one of five is a container. The same seed gives the same guests.
    """
    builder = Builder(name, version, clock, seed)
    builder.state.grouped = nodes > 1
    names = [f"pve{number}" for number in range(1, nodes + 1)]
    for node in names:
        builder.node(node, cpus=32, memory=256 * GIB)
    content = "images,rootdir,iso,vztmpl,backup,snippets"
    builder.storage("local", "dir", content, options={"path": "/var/lib/vz"}, total=500 * GIB)
    shared = {"path": "/mnt/shared"}
    builder.storage("shared", "dir", content, shared=True, options=shared, total=200 * TIB)
    for number in range(guests):
        _add_guest(builder, 100 + number, names[number % nodes], number)
    return builder.state


def _add_guest(builder: Builder, vmid: int, node: str, number: int) -> None:
    name = f"{_ROLES[number % len(_ROLES)]}-{vmid}"
    running = number % 4 != 3
    tags = {"tags": _ROLES[number % len(_ROLES)]}
    if number % 5 == 4:
        builder.container(vmid, name, node, storage="shared", config=tags, running=running)
    else:
        agent = Agent(addresses=(f"10.{vmid >> 16 & 255}.{vmid >> 8 & 255}.{vmid & 255}",))
        builder.vm(vmid, name, node, storage="shared", config=tags, running=running, agent=agent)
