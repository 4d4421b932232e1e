"""Parser of scenario files; docs/contributors/emulator.md describes the format."""

from functools import partial
from typing import Any

import yaml

from proxmox_client.emulator.clock import Clock
from proxmox_client.emulator.scenario.builder import Build
from proxmox_client.emulator.scenario.generator import generate_cluster
from proxmox_client.emulator.scenario.home_lab import home_lab
from proxmox_client.emulator.scenario.prod import prod
from proxmox_client.emulator.scenario.yaml_cluster import add_users, build_cluster
from proxmox_client.emulator.state.cluster import ClusterState

DEMOS = {"home-lab": home_lab, "prod": prod}
Entries = dict[str, list[dict[str, object]]]


def parse_scenario(text: str) -> tuple[dict[str, Build], Entries, Entries]:
    """Parse a YAML text into the clusters, their initial faults and actions, by cluster name.

    Raise ValueError for a text that is no YAML or has no clusters, and for an unknown demo.
    """
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    clusters = document.get("clusters") if isinstance(document, dict) else None
    if not (clusters and isinstance(clusters, list) and all(map(_is_named, clusters))):
        raise ValueError("A scenario is a mapping with a list of clusters that have names")
    builds, faults, actions = {}, {}, {}
    for cluster in clusters:
        name = str(cluster["name"])
        builds[name] = _build(name, cluster)
        faults[name] = list(cluster.get("faults", []))
        actions[name] = list(cluster.get("actions", []))
    return builds, faults, actions


def _is_named(cluster: object) -> bool:
    return isinstance(cluster, dict) and "name" in cluster


def _build(name: str, cluster: dict[str, Any]) -> Build:
    if "demo" in cluster:
        return _demo(name, cluster["demo"])
    if isinstance(cluster.get("nodes", 3), int):
        return partial(_generate, name, cluster)
    return partial(build_cluster, name, cluster)


def _demo(name: str, demo: str) -> Build:
    if demo not in DEMOS:
        raise ValueError(f"No demo {demo!r}; choose one of {', '.join(DEMOS)}")

    def build(clock: Clock) -> ClusterState:
        state = DEMOS[demo](clock)
        state.name = name
        return state

    return build


def _generate(name: str, cluster: dict[str, Any], clock: Clock) -> ClusterState:
    state = generate_cluster(
        name,
        clock,
        version=str(cluster.get("version", "9.2")),
        nodes=int(cluster.get("nodes", 3)),
        guests=int(cluster.get("guests", 12)),
        seed=int(cluster.get("seed", 1)),
    )
    add_users(state, cluster)
    return state
