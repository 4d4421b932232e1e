"""SMART: what physical disks report about themselves."""

import re
from typing import Final

from msgspec import field

from proxmox_client.json_decoder import Answer

_NUMBER: Final = re.compile(r"-?(0x[0-9a-fA-F]{1,15}|[0-9,.]{0,20}[0-9])")
_NOT_FAILING: Final = frozenset({"", "-"})


class SmartAttribute(Answer, frozen=True):
    """An attribute of an ATA disk; `raw` is the vendor's text, `fail` says when it failed."""

    name: str = ""
    raw: str = ""
    fail: str = "-"

    @property
    def is_failing(self) -> bool:
        """Whether its value is, or once was, below its threshold."""
        return self.fail not in _NOT_FAILING

    @property
    def number(self) -> int | None:
        """The first number of the raw value."""
        return _number(self.raw)


class Smart(Answer, frozen=True):
    """The answer of a disk: attributes of ATA disks, the text of NVMe and SAS disks."""

    health: str | None = None
    type: str | None = None
    attributes: list[SmartAttribute] = field(default_factory=list)
    text: str | None = None

    def attribute(self, *names: str) -> int | None:
        """Return the number of the first attribute or line of the text with one of these names."""
        numbers = {attribute.name: attribute.number for attribute in self.attributes}
        numbers |= {name: _number(value) for name, value in self.lines.items()}
        return next((numbers[name] for name in names if numbers.get(name) is not None), None)

    @property
    def lines(self) -> dict[str, str]:
        """The lines `name: value` of the text."""
        parts = (line.partition(":") for line in (self.text or "").splitlines())
        named = ((name.strip(), value.strip()) for name, _, value in parts)
        return {name: value for name, value in named if value and name[:1].isalpha()}


def _number(text: str) -> int | None:
    """Return the number at the start of a text such as `12,345`, `0x00` or `36 Celsius`."""
    match = _NUMBER.match(text.strip())
    if match is None:
        return None
    digits = match[0].replace(",", "").partition(".")[0]
    return int(digits, 16) if digits.lower().startswith("0x") else int(digits or 0)
