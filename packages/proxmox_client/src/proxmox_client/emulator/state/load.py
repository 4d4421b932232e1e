"""How busy things are: smooth, a little noisy, and the same for the same moment."""

import math
from dataclasses import dataclass
from typing import Final

DAY: Final = 86400.0
STEP: Final = 10
"""Seconds between two measurements, as pvestatd takes them."""


@dataclass(slots=True)
class Load:
    """What a guest or node does on average, and how far it swings over a day."""

    phase: int = 0
    cpu: float = 0.02
    """Share of its processors."""
    swing: float = 0.3
    """How far usage moves, as a share of its average."""
    memory: float = 0.5
    """Share of its memory."""
    net_in: float = 0.0
    """Bytes a second, like the rates below."""
    net_out: float = 0.0
    disk_read: float = 0.0
    disk_write: float = 0.0
    pressure: float = 0.0
    """Share of time in which something waits, in percent."""

    def both_at(self, when: float) -> tuple[float, float]:
        """Shares of the processors and of the memory in use at a moment."""
        level = self._level(when)
        cpu = self.cpu * level * (0.9 + 0.2 * self.noise(when))
        memory = self.memory * (1 + 0.08 * (level - 1))
        return min(0.999, max(0.0005, cpu)), min(0.985, max(0.01, memory))

    def cpu_at(self, when: float) -> float:
        """Share of the processors in use at a moment."""
        return self.both_at(when)[0]

    def memory_at(self, when: float) -> float:
        """Share of the memory in use at a moment."""
        return self.both_at(when)[1]

    def rate_at(self, rate: float, when: float) -> float:
        """A rate at a moment, in its own unit."""
        return rate * self._level(when) * (0.6 + 0.8 * self.noise(when))

    def pressure_at(self, when: float) -> float:
        """Percent of the time in which something waited."""
        return round(min(99.0, self.pressure * self._level(when) * self.noise(when)), 2)

    def noise(self, when: float) -> float:
        """A number from 0 to 1 that belongs to one measurement."""
        mixed = (int(when) // STEP * 2654435761 + self.phase * 40503) & 0xFFFFFFFF
        mixed = ((mixed ^ (mixed >> 15)) * 0x2C1B3C6D) & 0xFFFFFFFF
        return (mixed >> 8 & 0xFFFF) / 65535.0

    def _level(self, when: float) -> float:
        angle = 2 * math.pi * (when / DAY + (self.phase % 97) / 970)
        return 1 + self.swing * math.sin(angle)
