"""Clusters that a scenario file describes in full: nodes, storages, guests and users."""

from typing import Any

from proxmox_client.emulator.clock import Clock
from proxmox_client.emulator.scenario.builder import Builder
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import REMOVAL, Agent, Guest
from proxmox_client.emulator.state.jobs import Pool
from proxmox_client.emulator.state.sizes import GIB, parse_size
from proxmox_client.emulator.state.user_config import (
    AclEntry,
    Group,
    Realm,
    SecondFactor,
    Token,
    User,
)


def build_cluster(name: str, cluster: dict[str, Any], clock: Clock) -> ClusterState:
    """Build a cluster from its entry in a scenario file."""
    builder = Builder(name, str(cluster.get("version", "9.2")), clock, int(cluster.get("seed", 1)))
    for node in cluster["nodes"]:
        _add_node(builder, node if isinstance(node, dict) else {"name": node})
    builder.state.grouped = len(builder.state.nodes) > 1
    for storage in cluster.get("storages", [{"name": "local"}]):
        _add_storage(builder, dict(storage))
    for guest in cluster.get("guests", []):
        _add_guest(builder, dict(guest))
    for pool in cluster.get("pools", []):
        members = set(pool.get("vmids", []))
        entry = Pool(pool["name"], pool.get("comment", ""), members, set(pool.get("storages", [])))
        builder.state.pools[entry.poolid] = entry
    builder.state.downloads.update(cluster.get("downloads", {}))
    add_users(builder.state, cluster)
    return builder.state


def add_users(state: ClusterState, cluster: dict[str, Any]) -> None:
    """Add the realms, groups, users and ACL entries of a cluster's entry in a scenario file."""
    config = state.user_config
    config.realms |= {entry["realm"]: Realm(**entry) for entry in cluster.get("realms", [])}
    for group in cluster.get("groups", []):
        config.groups[group] = Group(group)
    for entry in cluster.get("users", []):
        details = dict(entry)
        tokens = [Token(**token) for token in details.pop("tokens", [])]
        factors = [
            SecondFactor(str(number), **factor)
            for number, factor in enumerate(details.pop("factors", []), 1)
        ]
        groups = set(details.pop("groups", []))
        by_name = {token.name: token for token in tokens}
        user = User(groups=groups, tokens=by_name, factors=factors, **details)
        config.users[user.userid] = user
    config.acl += [AclEntry(**entry) for entry in cluster.get("acl", [])]


def _add_node(builder: Builder, entry: dict[str, Any]) -> None:
    details = dict(entry)
    name = details.pop("name")
    for key in ("memory", "swap", "root_total"):
        if key in details:
            details[key] = parse_size(str(details[key]))
    builder.node(name, **details)


def _add_storage(builder: Builder, entry: dict[str, Any]) -> None:
    name, type_ = entry.pop("name"), entry.pop("type", "dir")
    content = entry.pop("content", "images,rootdir,iso,vztmpl,backup,snippets")
    volumes = entry.pop("volumes", [])
    entry["nodes"] = tuple(entry.get("nodes", ()))
    for key in ("total", "other_used"):
        if key in entry:
            entry[key] = parse_size(str(entry[key]))
    builder.storage(name, type_, content, **entry)
    for volume in volumes:
        details = dict(volume)
        node = details.pop("node", next(iter(builder.state.nodes)))
        size = parse_size(str(details.pop("size", GIB)))
        builder.volume(name, node, details.pop("name"), details.pop("content"), size, **details)


def _add_guest(builder: Builder, entry: dict[str, Any]) -> None:
    is_container = entry.pop("type", "qemu") == "lxc"
    snapshots = entry.pop("snapshots", [])
    pending, removals = entry.pop("pending", {}), entry.pop("removals", [])
    agent = Agent(**entry.pop("agent")) if isinstance(entry.get("agent"), dict) else None
    entry.setdefault("storage", next(iter(builder.state.storages)))
    if "load" in entry:
        entry["load"] = builder.load(entry["vmid"], **entry["load"])
    guest: Guest
    if is_container:
        guest = builder.container(**entry)
    else:
        entry["disks"] = tuple(entry.get("disks", (32,)))
        guest = builder.vm(**entry, agent=agent)
    guest.pending.update(pending)
    guest.removals.update(dict.fromkeys(removals, REMOVAL))
    for snapshot in snapshots:
        builder.snapshot(guest, **snapshot)
