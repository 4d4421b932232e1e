"""Hosts of a cluster, any of which answers for the whole cluster."""

import re
from collections.abc import Sequence
from typing import NamedTuple, Self

DEFAULT_PORT = 8006
_HOST = re.compile(
    r"(?:(?P<name>[A-Za-z0-9_.-]+)|\[(?P<address>[0-9A-Fa-f:.]+)\])(?::(?P<port>\d{1,5}))?",
    re.ASCII,
)


class Host(NamedTuple):
    """The name or address of a node, and its port."""

    name: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `name`, `name:port` or `[address]:port`, or raise ValueError."""
        match = _HOST.fullmatch(text)
        port = int(match["port"] or DEFAULT_PORT) if match else 0
        if match is None or not 0 < port < 65536:
            raise ValueError(f"{text!r} is not a host: write name, name:port or [address]:port")
        return cls(match["address"] or match["name"], port)

    def __str__(self) -> str:
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


class HostRotation:
    """Hosts in rotation: the current one is used until it fails."""

    def __init__(self, hosts: Sequence[str]) -> None:
        if not hosts:
            raise ValueError("A cluster needs at least one host")
        self._hosts = [Host.parse(host) for host in hosts]
        self._current = 0

    def __len__(self) -> int:
        return len(self._hosts)

    @property
    def current(self) -> Host:
        """The host for the next request."""
        return self._hosts[self._current]

    def mark_failed(self, host: Host) -> None:
        """Switch to the next host, unless a concurrent request has already switched."""
        if host == self.current:
            self._current = (self._current + 1) % len(self._hosts)
