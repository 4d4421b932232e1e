"""Hosts: name or address of a node, and its port."""

import re
from typing import NamedTuple, Self

DEFAULT_PORT = 8006
BACKUP_SERVER_PORT = 8007
_HOST = re.compile(
    r"(?:(?P<name>[A-Za-z0-9_.-]+)|\[(?P<address>[0-9A-Fa-f:.]+)\])(?::(?P<port>\d{1,5}))?",
    re.ASCII,
)


class Host(NamedTuple):
    """The name or address of a node, and its port."""

    name: str
    port: int

    @classmethod
    def parse(cls, text: str, default_port: int = DEFAULT_PORT) -> Self:
        """Parse `name`, `name:port` or `[address]:port`, or raise ValueError."""
        match = _HOST.fullmatch(text)
        port = int(match["port"] or default_port) if match else 0
        if match is None or not 0 < port < 65536:
            raise ValueError(f"{text!r} is not a host: write name, name:port or [address]:port")
        return cls(match["address"] or match["name"], port)

    def __str__(self) -> str:
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"
