"""The hosts of a cluster, any of which answers for all."""

import re
from collections.abc import Sequence
from typing import NamedTuple, Self

DEFAULT_PORT = 8006
_HOST = re.compile(
    r"(?:(?P<name>[A-Za-z0-9_.-]+)|\[(?P<address>[0-9A-Fa-f:.]+)\])(?::(?P<port>\d{1,5}))?",
    re.ASCII,
)


class Host(NamedTuple):
    """Where a node listens."""

    name: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `name`, `name:port` or `[address]:port`, or raise ValueError."""
        match = _HOST.fullmatch(text)
        port = int(match["port"] or DEFAULT_PORT) if match else 0
        if match is None or not 0 < port < 65536:
            raise ValueError(f"{text!r} is not a host: write name, name:port or [address]:port")
        return cls(match["address"] or match["name"], port)

    def __str__(self) -> str:
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


class Ring:
    """Hosts in turn: the one that answered last is asked until it fails."""

    def __init__(self, hosts: Sequence[str]) -> None:
        if not hosts:
            raise ValueError("A cluster needs at least one host")
        self._hosts = [Host.parse(host) for host in hosts]
        self._current = 0

    def __len__(self) -> int:
        return len(self._hosts)

    @property
    def current(self) -> Host:
        """The host to ask."""
        return self._hosts[self._current]

    def failed(self, host: Host) -> None:
        """Turn to the next host, unless somebody has already turned away from this one."""
        if host == self.current:
            self._current = (self._current + 1) % len(self._hosts)
