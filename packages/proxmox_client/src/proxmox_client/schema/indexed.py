"""Numbered parameters: `net[n]` stands for net0 to net31."""

import re
from collections.abc import Mapping
from typing import Final

from proxmox_client.schema.parameter import Parameter

HIGHEST: Final = {
    "acmedomain": 4,
    "dev": 255,
    "hostpci": 15,
    "ide": 3,
    "ipconfig": 31,
    "link": 7,
    "mp": 255,
    "net": 31,
    "numa": 7,
    "parallel": 2,
    "sata": 5,
    "scsi": 30,
    "serial": 3,
    "unused": 255,
    "usb": 13,
    "virtio": 15,
    "virtiofs": 9,
}
"""The highest number of each family; the published schema omits it."""

_NUMBERED = re.compile(r"([a-z]+)(0|[1-9]\d{0,2})", re.ASCII)


class IndexedNames:
    """A lookup of parameters by numbered name."""

    def __init__(self, parameters: Mapping[str, Parameter]) -> None:
        self._families = {
            name.removesuffix("[n]"): parameter
            for name, parameter in parameters.items()
            if name.endswith("[n]")
        }

    def find(self, name: str) -> Parameter | None:
        """Return the parameter of a numbered name, or None if its number exceeds the limit."""
        match = _NUMBERED.fullmatch(name)
        if match is None or match[1] not in self._families:
            return None
        return self._families[match[1]] if int(match[2]) <= HIGHEST[match[1]] else None
