"""A scenario: the clusters that the emulator builds when it starts."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from proxmox_client.emulator.backup_server.state import BuildBackupServer
from proxmox_client.emulator.scenario.builder import Build
from proxmox_client.emulator.scenario.generator import generate_cluster
from proxmox_client.emulator.scenario.yaml_file import parse_scenario


@dataclass(frozen=True)
class Scenario:
    """Clusters by name, each with the function that builds it."""

    clusters: dict[str, Build] = field(default_factory=dict)
    faults: dict[str, list[dict[str, object]]] = field(default_factory=dict)
    """Faults that are active from the start, by cluster."""
    actions: dict[str, list[dict[str, object]]] = field(default_factory=dict)
    """Actions of `actions.py` that are run at the start, by cluster."""
    backup_servers: dict[str, BuildBackupServer] = field(default_factory=dict)
    """Backup servers by name, each with the function that builds it beside the clusters."""

    @classmethod
    def cluster(
        cls, name: str, *, version: str = "9.2", nodes: int = 3, guests: int = 12, seed: int = 1
    ) -> "Scenario":
        """Return a scenario of one generated cluster; the same seed gives the same guests."""
        build = partial(
            generate_cluster, name, version=version, nodes=nodes, guests=guests, seed=seed
        )
        return cls({name: build})

    @classmethod
    def load(cls, text: str | Path) -> "Scenario":
        """Return the scenario of a YAML text, or of a file given as a Path.

        Raise ValueError for a text that is no scenario.
        """
        return cls(*parse_scenario(text.read_text() if isinstance(text, Path) else text))

    def __add__(self, other: "Scenario") -> "Scenario":
        """Return a scenario with the clusters and backup servers of both."""
        return Scenario(
            self.clusters | other.clusters,
            self.faults | other.faults,
            self.actions | other.actions,
            self.backup_servers | other.backup_servers,
        )
