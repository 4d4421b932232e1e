"""Firewall configuration of one level: the cluster, a node or a guest."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class RuleSet:
    """Rules and what they refer to."""

    options: dict[str, Any] = field(default_factory=dict)
    rules: list[dict[str, Any]] = field(default_factory=list)
    groups: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    aliases: list[dict[str, Any]] = field(default_factory=list)
    ip_sets: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
