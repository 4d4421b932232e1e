"""Clusters written out in a scenario file: every node, storage, guest and person."""

from typing import Any

from proxmox_client.emulator.clock import Clock
from proxmox_client.emulator.scenario.builder import Builder
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import Agent, Guest
from proxmox_client.emulator.state.jobs import Pool
from proxmox_client.emulator.state.people import Grant, Group, Token, User
from proxmox_client.emulator.state.sizes import GIB, parse_size
from proxmox_client.emulator.work.pending import REMOVAL


def written(name: str, cluster: dict[str, Any], clock: Clock) -> ClusterState:
    """Build the cluster a scenario file describes."""
    builder = Builder(name, str(cluster.get("version", "9.2")), clock, int(cluster.get("seed", 1)))
    for node in cluster["nodes"]:
        _node(builder, node if isinstance(node, dict) else {"name": node})
    builder.state.grouped = len(builder.state.nodes) > 1
    for storage in cluster.get("storages", [{"name": "local"}]):
        _storage(builder, dict(storage))
    for guest in cluster.get("guests", []):
        _guest(builder, dict(guest))
    for pool in cluster.get("pools", []):
        members = set(pool.get("vmids", []))
        entry = Pool(pool["name"], pool.get("comment", ""), members, set(pool.get("storages", [])))
        builder.state.pools[entry.poolid] = entry
    builder.state.downloads.update(cluster.get("downloads", {}))
    add_people(builder.state, cluster)
    return builder.state


def add_people(state: ClusterState, cluster: dict[str, Any]) -> None:
    """Add the users, groups, tokens and grants a scenario names."""
    people = state.people
    for group in cluster.get("groups", []):
        people.groups[group] = Group(group)
    for entry in cluster.get("users", []):
        details = dict(entry)
        tokens = [Token(**token) for token in details.pop("tokens", [])]
        groups = set(details.pop("groups", []))
        user = User(groups=groups, tokens={token.name: token for token in tokens}, **details)
        people.users[user.userid] = user
    people.grants += [Grant(**grant) for grant in cluster.get("acl", [])]


def _node(builder: Builder, entry: dict[str, Any]) -> None:
    details = dict(entry)
    name = details.pop("name")
    for key in ("memory", "swap", "root_total"):
        if key in details:
            details[key] = parse_size(str(details[key]))
    builder.node(name, **details)


def _storage(builder: Builder, entry: dict[str, Any]) -> None:
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


def _guest(builder: Builder, entry: dict[str, Any]) -> None:
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
