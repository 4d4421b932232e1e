"""Budgets: how many writes that lose data may be sent for a key or a user in a day (UTC).

All connections of a user share one: to connect again, or another client, gives no further budget.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from pvemcp_server.errors import Conflict, OverBudget
from pvemcp_server.store import Store
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.records import KeyRecord

KEPT = timedelta(days=7)  # a count, also of keys that are gone


@dataclass(frozen=True, slots=True)
class Budget:
    """The budget of a key today: its limit, the writes sent, and when it renews."""

    limit: int
    used: int
    renews: datetime

    @property
    def left(self) -> int:
        return max(0, self.limit - self.used)

    def fact(self, needed: int) -> str:
        """Return what is used of it, and what a call needs, as a sentence."""
        return (
            f"This key may send {self.limit} writes that lose data a day, each guest counted; "
            f"{self.used} were sent today, and this needs {needed}."
        )


class DestructiveBudgets:
    """The budgets of all keys, counted in the store for all processes together."""

    def __init__(self, store: Store, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._store = store
        self._clock = clock

    async def of(self, key_id: str, default: int) -> Budget:
        """Return the key's budget; `default` is the limit of keys without one of their own."""
        key = await self._store.keys.find(id=key_id)
        own = key.destructive_per_day if key else None
        use = await self._store.destructive_uses.find(holder=await self._holder(key_id, key))
        now = self._clock()
        used = use.count if use and use.day >= f"{now:%Y-%m-%d}" else 0
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        return Budget(default if own is None else own, used, midnight + timedelta(days=1))

    async def spend(self, key_id: str, default: int, count: int = 1) -> None:
        """Count writes that are sent now; raise OverBudget, and count nothing, if too few are left.

        `count` is the number of guests that one request is about. Raise Conflict when the key has
        been removed.
        """
        key = await self._store.keys.find(id=key_id)
        if key is None:
            raise Conflict("The key was removed; nothing was sent.")
        limit = default if key.destructive_per_day is None else key.destructive_per_day
        now = self._clock()
        day, kept = (f"{moment:%Y-%m-%d}" for moment in (now, now - KEPT))
        holder = await self._holder(key_id, key)
        uses = self._store.destructive_uses
        if not await uses.spend(holder, day=day, most=limit, count=count, kept=kept):
            raise self.error(await self.of(key_id, default), count)

    async def _holder(self, key_id: str, key: KeyRecord | None) -> str:
        """Return whose budget it is: that of the user of a connection, or else of the key."""
        if key is None or key.person is None:
            return key_id
        connection = await self._store.connections.find(id=key_id)
        return connection.subject if connection else key_id

    def error(self, budget: Budget, needed: int) -> OverBudget:
        """Return the refusal of a call, with when the budget renews."""
        return OverBudget(
            f"{budget.fact(needed)} This was not sent.",
            hint=f"The budget renews at {budget.renews:%Y-%m-%dT%H:%M:%SZ}. An administrator can "
            "raise it on the page API Access.",
            seconds=(budget.renews - self._clock()).total_seconds(),
        )
