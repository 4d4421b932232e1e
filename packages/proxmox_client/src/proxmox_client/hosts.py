"""The hosts of a cluster, any of which answers for all."""

from collections.abc import Sequence
from typing import NamedTuple, Self

DEFAULT_PORT = 8006


class Host(NamedTuple):
    """Where a node listens."""

    name: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `name`, `name:port` or `[address]:port`, or raise ValueError."""
        if text.startswith("["):
            name, _, rest = text[1:].partition("]")
        else:
            name, mark, number = text.partition(":")
            rest = mark + number
        port = rest.removeprefix(":") or str(DEFAULT_PORT)
        if not name or "/" in name or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ValueError(f"{text!r} is not a host: write name, name:port or [address]:port")
        return cls(name, int(port))

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
