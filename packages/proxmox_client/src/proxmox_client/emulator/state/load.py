"""Loads of guests and nodes: functions of the time, smooth with a little noise."""

import math
from dataclasses import dataclass
from typing import Final
from zlib import crc32

DAY: Final = 86400.0
STEP: Final = 10
"""Seconds between two measurements of pvestatd."""
_UNEVEN: Final = 0.3


@dataclass(slots=True)
class Load:
    """The average load of a guest or node and its variation over a day.

    The same time always gives the same values, so series need no storage.
    """

    phase: int = 0
    cpu: float = 0.02
    """Average share of the CPUs in use."""
    swing: float = 0.3
    """Amplitude of the daily variation, as a share of the average."""
    memory: float = 0.5
    """Average share of the memory in use."""
    net_in: float = 0.0
    """Bytes per second, like the rates below."""
    net_out: float = 0.0
    disk_read: float = 0.0
    disk_write: float = 0.0
    pressure: float = 0.0
    """Average percent of the time in which tasks wait."""

    def usage_at(self, when: float) -> tuple[float, float]:
        """Return the shares of CPUs and memory in use at a time."""
        level = self._level(when)
        cpu = self.cpu * level * (0.9 + 0.2 * self.noise(when))
        memory = self.memory * (1 + 0.08 * (level - 1))
        return min(0.999, max(0.0005, cpu)), min(0.985, max(0.01, memory))

    def cpu_at(self, when: float) -> float:
        """Return the share of the CPUs in use at a time."""
        return self.usage_at(when)[0]

    def memory_at(self, when: float) -> float:
        """Return the share of the memory in use at a time."""
        return self.usage_at(when)[1]

    def rate_at(self, rate: float, when: float) -> float:
        """Return the value of an average rate at a time, in the same unit."""
        return rate * self._level(when) * (0.6 + 0.8 * self.noise(when))

    def pressure_at(self, when: float) -> float:
        """Return the percent of the time in which tasks waited."""
        return round(min(99.0, self.pressure * self._level(when) * self.noise(when)), 2)

    def noise(self, when: float) -> float:
        """Return a pseudo-random number from 0 to 1, constant within one measurement."""
        return _noise(when, self.phase)

    def _level(self, when: float) -> float:
        angle = 2 * math.pi * (when / DAY + (self.phase % 97) / 970)
        return 1 + self.swing * math.sin(angle)


def unevenness(when: float, name: str) -> float:
    """Return a factor near 1 for the growth until now: no storage grows along a line."""
    return 1 + _UNEVEN * (_noise(when, crc32(name.encode())) - 0.5)


def _noise(when: float, phase: int) -> float:
    mixed = (int(when) // STEP * 2654435761 + phase * 40503) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> 15)) * 0x2C1B3C6D) & 0xFFFFFFFF
    return (mixed >> 8 & 0xFFFF) / 65535.0
