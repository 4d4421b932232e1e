"""Firewall configuration of one level: cluster, node or guest."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class RuleSet:
    """The rules of a level and the groups, aliases and IP sets that they refer to."""

    options: dict[str, Any] = field(default_factory=dict)
    rules: list[dict[str, Any]] = field(default_factory=list)
    groups: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    aliases: list[dict[str, Any]] = field(default_factory=list)
    ip_sets: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
