"""How often and how many at a time: token buckets and counters, kept in this process."""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from pvemcp_server.errors import OverBudget

REMEMBERED = 10_000  # names kept; the one seen longest ago is forgotten first
Clock = Callable[[], float]


class Rate:
    """A token bucket for each name: a minute's worth at once, refilled evenly."""

    def __init__(self, *, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str, per_minute: int) -> bool:
        """Takes one token; False when the bucket is empty."""
        tokens = self.left(name, per_minute)
        if tokens < 1:
            return False
        self._buckets[name] = (tokens - 1, self._clock())
        self._buckets.move_to_end(name)
        if len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)
        return True

    def give_back(self, name: str) -> None:
        """Puts back a token that was taken."""
        if name in self._buckets:
            tokens, then = self._buckets[name]
            self._buckets[name] = (tokens + 1, then)

    def left(self, name: str, per_minute: int) -> float:
        """The tokens in the bucket now."""
        tokens, then = self._buckets.get(name, (float(per_minute), 0.0))
        elapsed = self._clock() - then
        return min(float(per_minute), tokens + elapsed * per_minute / 60)


class CallLimits:
    """The limits of calls: how many a minute and how many at a time."""

    def __init__(self, *, clock: Clock = time.monotonic) -> None:
        self._rate = Rate(clock=clock)
        self._running: Counter[str] = Counter()

    def check_rate(self, name: str, per_minute: int) -> None:
        """Counts a call of `name` (a key's id or an address); raises OverBudget beyond the rate."""
        if not self._rate.take(name, per_minute):
            raise OverBudget(
                f"More than {per_minute} calls a minute.", hint="Wait a few seconds and try again."
            )

    def running(self, key_id: str, most: int) -> "Place":
        """One of the key's places while a call runs; raises OverBudget when all are taken."""
        if self._running[key_id] >= most:
            raise OverBudget(
                f"{most} calls of this key are running already.", hint="Wait for one to end."
            )
        return Place(self._running, key_id)


class Place:
    """A place of a key, taken while inside: `with limits.running(key_id, most):`."""

    __slots__ = ("_key_id", "_running")

    def __init__(self, running: Counter[str], key_id: str) -> None:
        self._running = running
        self._key_id = key_id

    def __enter__(self) -> None:
        self._running[self._key_id] += 1

    def __exit__(self, *_: object) -> None:
        self._running[self._key_id] -= 1
        if not self._running[self._key_id]:
            del self._running[self._key_id]


@lru_cache(1024)  # the same few clients call again and again
def network_of(address: str) -> str:
    """What one client can choose from freely counts as one: an IPv4 address, an IPv6 /64."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
