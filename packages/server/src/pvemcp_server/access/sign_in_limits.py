"""Limits of sign-ins: strangers cannot lock an administrator out, or make one wait for long.

Failures lock a name for their source only: a browser that signed in before, or else an address. So
the attempts of strangers lock their own addresses, and never the browser that an administrator
uses. Nothing here depends on whether the name exists.
"""

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from pvemcp_server.access.limits import BUSY_SECONDS, FairQueue
from pvemcp_server.errors import TooManyFailures
from pvemcp_server.store.shared_failures import SharedFailures

FREE_FAILURES: Final = 5  # failed sign-ins in a row before a source is locked for the name
FIRST_LOCK: Final = timedelta(seconds=30)
LONGEST_LOCK: Final = timedelta(minutes=15)
MOST_LOCKS: Final = 10_000  # the least recently used one is evicted
DEVICE_LIFE: Final = timedelta(days=90)  # since its last sign-in

Now = Callable[[], datetime]


@dataclass(slots=True)
class _Failures:
    count: int = 0
    locked_until: datetime | None = None


class FailureLocks:
    """Failed sign-ins in a row, by account and source; each further one locks for twice as long.

    Processes that share a database share them; `kind` keeps those of several locks apart.
    """

    def __init__(self, clock: Now, kind: str = "", shared: SharedFailures | None = None) -> None:
        self._clock = clock
        self._kind = kind
        self._shared = shared
        self._failures: OrderedDict[tuple[str, str], _Failures] = OrderedDict()

    async def is_locked(self, account: str, source: str) -> bool:
        """Return whether the source has to wait."""
        if self._shared and self._shared.are_used:
            name = self._name(account, source)
            return await self._shared.seconds(name, LONGEST_LOCK.total_seconds()) > 0
        return self._seconds(self._failures.get((account, source))) > 0

    async def begin(self, account: str, source: str) -> None:
        """Count an attempt as failed until it succeeds; raise TooManyFailures while locked.

        It is counted before its result is known, because guesses may arrive concurrently.
        """
        if self._shared and self._shared.are_used:
            seconds = await self._shared.count(
                self._name(account, source),
                free=FREE_FAILURES,
                first=FIRST_LOCK.total_seconds(),
                longest=LONGEST_LOCK.total_seconds(),
            )
        else:
            seconds = self._count(account, source)
        if seconds:
            raise TooManyFailures("locked after failed sign-ins", seconds=seconds)

    def _count(self, account: str, source: str) -> float:
        failures = self._failures.setdefault((account, source), _Failures())
        self._failures.move_to_end((account, source))
        if seconds := self._seconds(failures):
            return seconds
        failures.count += 1
        if failures.count >= FREE_FAILURES:
            doubled = FIRST_LOCK * 2 ** min(failures.count - FREE_FAILURES, 10)
            failures.locked_until = self._clock() + min(doubled, LONGEST_LOCK)
        if len(self._failures) > MOST_LOCKS:
            self._failures.popitem(last=False)
        return 0.0

    async def undo(self, account: str, source: str) -> None:
        """Take back an attempt that was not checked."""
        if self._shared and self._shared.are_used:
            await self._shared.undo(self._name(account, source))
            return
        failures = self._failures.get((account, source))
        if failures is None:
            return
        failures.count -= 1
        failures.locked_until = None
        if not failures.count:
            del self._failures[account, source]

    async def clear(self, account: str, source: str) -> None:
        """Forget the failures after a success."""
        if self._shared and self._shared.are_used:
            await self._shared.clear(self._name(account, source))
        self._failures.pop((account, source), None)

    def _name(self, account: str, source: str) -> str:
        """Return a name without the account and the address, for the database."""
        text = f"{self._kind}\n{account}\n{source}".encode("utf-8", "surrogatepass")
        return sha256(text).hexdigest()

    def _seconds(self, failures: _Failures | None) -> float:
        if failures is None or failures.locked_until is None:
            return 0
        left = failures.locked_until - self._clock()
        # a longer one than any lock: the clock was set back, perhaps by years
        return max(0.0, left.total_seconds()) if left <= LONGEST_LOCK else 0


class KnownDevices:
    """Browsers that signed in before, by a keyed token in a cookie; nothing is stored.

    A token gives no rights. It only counts the attempts of this browser apart from all others.
    """

    def __init__(self, key: Callable[[], bytes], clock: Now) -> None:
        self._key = key
        self._clock = clock

    def issue(self, name: str) -> str:
        """Return the token of a browser in which this administrator has signed in."""
        device = secrets.token_hex(16)
        expires = int((self._clock() + DEVICE_LIFE).timestamp())
        return f"{device}.{expires}.{self._mac(name, device, str(expires))}"

    def find(self, name: str, token: str) -> str | None:
        """Return the device of the token; None when it is not valid for this name."""
        device, _, rest = token.partition(".")
        expires, _, mac = rest.partition(".")
        expected = self._mac(name, device, expires)
        if not hmac.compare_digest(mac.encode(), expected.encode()):
            return None
        return device if int(expires) > self._clock().timestamp() else None

    def _mac(self, name: str, device: str, expires: str) -> str:
        text = f"{device}\n{expires}\n{name}".encode("utf-8", "surrogatepass")
        return hmac.digest(self._key(), text, "sha256").hex()


class SignInQueue(FairQueue):
    """A queue of sign-ins: a password hash takes a core and 64 MiB, and a failure at Proxmox 3 s.

    Sources are addresses and known browsers or accounts. A full one raises TooManyFailures.
    """

    def full(self) -> TooManyFailures:
        """Return the error for a sign-in that may not wait."""
        return TooManyFailures("too many sign-ins at once", seconds=BUSY_SECONDS)
