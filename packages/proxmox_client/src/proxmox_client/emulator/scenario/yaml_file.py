"""Scenarios as YAML."""

from functools import partial
from typing import Any

import yaml

from proxmox_client.emulator.clock import Clock
from proxmox_client.emulator.scenario.generated import generated
from proxmox_client.emulator.scenario.home_lab import home_lab
from proxmox_client.emulator.scenario.model import Build, Scenario
from proxmox_client.emulator.scenario.prod import prod
from proxmox_client.emulator.scenario.written import add_people, written
from proxmox_client.emulator.state.cluster import ClusterState

DEMOS = {"home-lab": home_lab, "prod": prod}


def read(text: str) -> Scenario:
    """The scenario a YAML text describes: see docs/contributors/emulator.md."""
    document = yaml.safe_load(text)
    clusters = document.get("clusters") if isinstance(document, dict) else None
    if not clusters:
        raise ValueError("A scenario is a mapping with a list of clusters")
    builds, faults = {}, {}
    for cluster in clusters:
        name = str(cluster["name"])
        builds[name] = _build(name, cluster)
        faults[name] = list(cluster.get("faults", []))
    return Scenario(builds, faults)


def _build(name: str, cluster: dict[str, Any]) -> Build:
    if "demo" in cluster:
        return _demo(name, cluster["demo"])
    if isinstance(cluster.get("nodes", 3), int):
        build = partial(
            generated,
            name,
            version=str(cluster.get("version", "9.2")),
            nodes=int(cluster.get("nodes", 3)),
            guests=int(cluster.get("guests", 12)),
            seed=int(cluster.get("seed", 1)),
        )
        return partial(_with_people, build, cluster)
    return partial(written, name, cluster)


def _demo(name: str, which: str) -> Build:
    if which not in DEMOS:
        raise ValueError(f"No demo {which!r}; choose one of {', '.join(DEMOS)}")

    def build(clock: Clock) -> ClusterState:
        state = DEMOS[which](clock)
        state.name = name
        return state

    return build


def _with_people(build: Build, cluster: dict[str, Any], clock: Clock) -> ClusterState:
    state = build(clock)
    add_people(state, cluster)
    return state
