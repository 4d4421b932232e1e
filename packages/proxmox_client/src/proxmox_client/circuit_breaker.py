"""What has just left reads without an answer: nobody waits for it in vain, read after read.

A node can be online for the cluster and yet hang, or one of its storages does. Each read would then
be waited for as long as Proxmox may take, while many more stand in line for the same node.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from proxmox_client.deadlines import bounded
from proxmox_client.errors import NodeUnreachable, ProxmoxError, ResponseError, Unreachable
from proxmox_client.paths import Place

REMEMBERED: Final = 60.0  # seconds after a full wait in vain; then it is waited for in full again
GLANCE: Final = 3.0  # seconds for a read meanwhile
QUIET: Final = 5.0  # seconds without any read after two in turn were in vain


@dataclass(slots=True)
class _Spell:
    """Why something is silent, until when that is remembered, and until when it is not asked."""

    why: str
    until: float
    quiet_until: float = 0.0


class Silence:
    """Remembers nodes and parts of them; `patience` is what a read may take."""

    def __init__(self, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience = patience
        self._clock = clock
        self._spells: dict[str, _Spell] = {}

    @asynccontextmanager
    async def heeded(self, place: Place, what: str) -> AsyncIterator[None]:
        """Around `what`, one read of the place; raises Unreachable without waiting."""
        began = self._clock()
        part = self._known(place.part, began)
        if part and began < part.quiet_until:
            again = f"it is asked again in {part.quiet_until - began:.0f} s"
            raise Unreachable(place.part, f"{part.why}; {again}")
        glances = bool(part or self._known(place.node, began))
        try:
            async with bounded(GLANCE if glances else None, what):
                yield
        except ResponseError as error:
            if isinstance(error, NodeUnreachable):
                self._note(place, str(error), renewed=not glances)
            else:  # a refusal is an answer
                self._forget(place)
            raise
        except BaseException as error:
            # also a wait that somebody else cut short was one in vain, if it was long enough
            waited = self._clock() - began >= (GLANCE if glances else self._patience)
            if waited:
                why = str(error) if isinstance(error, ProxmoxError) else "no answer"
                self._note(place, why, renewed=not glances)
            raise
        self._forget(place)

    def _known(self, name: str, now: float) -> _Spell | None:
        spell = self._spells.get(name)
        if spell and now >= spell.until:
            del self._spells[name]
            return None
        return spell

    def _note(self, place: Place, why: str, *, renewed: bool) -> None:
        names = {place.part} if place.is_storage else {place.part, place.node}
        for name in names:  # a storage may hang while its node is well
            now = self._clock()
            spell = self._known(name, now)
            if spell is None:
                self._spells[name] = _Spell(why, now + REMEMBERED)
                continue
            spell.why = why
            spell.quiet_until = now + QUIET
            if renewed:
                spell.until = now + REMEMBERED

    def _forget(self, place: Place) -> None:
        self._spells.pop(place.part, None)
        self._spells.pop(place.node, None)
