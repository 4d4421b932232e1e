"""The demo clusters with fewer guests.

Most tables ask Proxmox once per guest, and prod has 120: a walk over all tables takes seconds.
"""

from collections.abc import Hashable, Iterator
from dataclasses import replace

from proxmox_client.emulator import Clock, Scenario, demo
from proxmox_client.emulator.scenario.builder import Build
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import Guest


def few_guests() -> Scenario:
    """Return the demo scenario with the guests that show something no guest before them shows."""
    scenario = demo()
    clusters = {name: _reduced(build) for name, build in scenario.clusters.items()}
    return replace(scenario, clusters=clusters)


def _reduced(build: Build) -> Build:
    """Return a build of the cluster without guests that show nothing new."""

    def build_few(clock: Clock) -> ClusterState:
        state = build(clock)
        seen: set[Hashable] = set()
        for guest in list(state.guests.values()):
            features = {*_features(guest, state)}
            if features <= seen:
                _remove(guest, state)
            seen |= features
        return state

    return build_few


def _features(guest: Guest, state: ClusterState) -> Iterator[Hashable]:
    """Yield what a row about a guest, or the way to it, can depend on."""
    kind = guest.kind
    yield "place", guest.node, kind
    yield "state", kind, guest.status, guest.paused and guest.node
    yield from (("option", kind, name) for name in {*guest.config, *guest.pending})
    yield from (("pending", name) for name in {*guest.pending, *guest.removals})
    yield from (("tag", tag) for tag in str(guest.config.get("tags", "")).split(";"))
    yield from (("storage", kind, disk.storage) for disk in guest.disks())
    yield from (("snapshot", each.with_ram, each.state) for each in guest.snapshots.values())
    yield "pool", state.pool_of(guest.vmid)
    yield "high availability", state.ha_of(guest) is not None
    if agent := guest.agent:
        yield "agent", kind, agent.os_id, agent.answers, agent.refused
    for job in state.replications.values():
        if job.guest == guest.vmid:
            yield "replication", job.fail_count > 0
    if guest.path in state.firewalls:
        yield "firewall", guest.path


def _remove(guest: Guest, state: ClusterState) -> None:
    """Remove a guest with its volumes and backups, and all mentions of it."""
    del state.guests[guest.vmid]
    for pool in state.pools.values():
        pool.vmids.discard(guest.vmid)
    for storage in state.storages.values():
        for node in state.nodes:
            for volume in list(storage.volumes(node).values()):
                if volume.vmid == guest.vmid:
                    storage.remove(node, volume.volid)
    for job in list(state.replications.values()):
        if job.guest == guest.vmid:
            del state.replications[job.id]
    state.ha_resources.pop(f"{guest.kind.word.lower()}:{guest.vmid}", None)
