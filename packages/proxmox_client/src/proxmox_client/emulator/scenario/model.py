"""A scenario: clusters that are built when the emulator starts."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from proxmox_client.emulator.clock import Clock
from proxmox_client.emulator.scenario.generated import generated
from proxmox_client.emulator.state.cluster import ClusterState

Build = Callable[[Clock], ClusterState]


@dataclass(frozen=True)
class Scenario:
    """Clusters by name, each with the function that builds it."""

    clusters: dict[str, Build] = field(default_factory=dict)
    faults: dict[str, list[dict[str, object]]] = field(default_factory=dict)
    """Faults that hold from the start, by cluster."""

    @classmethod
    def cluster(
        cls, name: str, *, version: str = "9.2", nodes: int = 3, guests: int = 12, seed: int = 1
    ) -> "Scenario":
        """One cluster of this size, the same for the same seed."""
        build = partial(generated, name, version=version, nodes=nodes, guests=guests, seed=seed)
        return cls({name: build})

    @classmethod
    def load(cls, text: str | Path) -> "Scenario":
        """The scenario of a YAML text or file."""
        from proxmox_client.emulator.scenario.yaml_file import read

        return read(text.read_text() if isinstance(text, Path) else text)

    def __add__(self, other: "Scenario") -> "Scenario":
        """Both scenarios at once."""
        return Scenario(self.clusters | other.clusters, self.faults | other.faults)
