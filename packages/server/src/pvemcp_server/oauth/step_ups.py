"""Step-ups that are due: connections whose client was asked for a wider scope a moment ago.

Version 1 of the TypeScript SDK (its issue 2255) refreshes its token after insufficient_scope
instead of asking the user, and then fails: no refresh widens a scope. Its refresh is answered with
an error that leaves the token valid, and after which it asks the user.
"""

import time
from collections import OrderedDict
from typing import Final

from pvemcp_server.access.limits import Clock
from pvemcp_server.oauth.scopes import Scope

SECONDS: Final = 10  # between the two requests of a client that works by itself
MOST: Final = 1_000


class StepUps:
    """The connections of one process that were asked for a wider scope."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._due: OrderedDict[str, tuple[Scope, float]] = OrderedDict()

    def add(self, connection_id: str, need: Scope) -> None:
        """Remember that the client of a connection was asked for this scope."""
        self._due[connection_id] = (need, self._clock() + SECONDS)
        self._due.move_to_end(connection_id)
        if len(self._due) > MOST:
            self._due.popitem(last=False)

    def take(self, connection_id: str) -> Scope | None:
        """Return the scope that was asked for, once and only for a moment."""
        need, until = self._due.pop(connection_id, (None, 0.0))
        return need if until > self._clock() else None
