"""What has just left reads without an answer: nobody waits for it in vain, read after read.

A node can be online for the cluster and yet hang, or one storage of it does. Each read would then
be waited for as long as Proxmox may take, while many more stand in line for the same node.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from proxmox_client.deadlines import bounded
from proxmox_client.errors import NodeUnreachable, Unreachable

REMEMBERED: Final = 60.0  # seconds after a full wait in vain; then it is waited for in full again
GLANCE: Final = 3.0  # seconds for a read meanwhile
QUIET: Final = 5.0  # seconds without any read after two in turn were in vain


@dataclass(slots=True)
class _Spell:
    """How long a place is known as silent, and until when it is not asked at all."""

    until: float
    quiet_until: float = 0.0


class Silence:
    """Remembers places, which are parts of a node; `patience` is what a read may take."""

    def __init__(self, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience = patience
        self._clock = clock
        self._spells: dict[str, _Spell] = {}

    @asynccontextmanager
    async def heeded(self, place: str) -> AsyncIterator[None]:
        """Around one read of the place, `""` being none; raises Unreachable without waiting."""
        began = self._clock()
        spell = self._known(place, began)
        if spell and began < spell.quiet_until:
            raise Unreachable(
                place,
                "no answer to the last reads; "
                f"it is asked again in {spell.quiet_until - began:.0f} s",
            )
        try:
            async with bounded(GLANCE if spell else None, f"A read of {place}"):
                yield
        except BaseException as error:
            # also a wait that somebody else cut short was one in vain, if it was long enough
            waited = self._clock() - began >= (GLANCE if spell else self._patience)
            if place and (waited or isinstance(error, NodeUnreachable)):
                self._note(place, spell)
            raise
        self._spells.pop(place, None)

    def _known(self, place: str, now: float) -> _Spell | None:
        spell = self._spells.get(place)
        if spell and now >= spell.until:
            del self._spells[place]
            return None
        return spell

    def _note(self, place: str, before: _Spell | None) -> None:
        now = self._clock()
        spell = self._known(place, now)
        if spell is None:
            self._spells[place] = _Spell(until=now + REMEMBERED)
            return
        spell.quiet_until = now + QUIET
        if before is None:
            spell.until = now + REMEMBERED
