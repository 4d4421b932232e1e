"""Injected faults: requests that are slow, hang, fail or lose their response."""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from proxmox_client.emulator.clock import Clock
from proxmox_client.emulator.errors import ApiError, Forbidden, Unauthorized
from proxmox_client.emulator.http.malformations import MALFORMATIONS, malformed
from proxmox_client.emulator.http.messages import NO_RESPONSE, Delivery, Response, empty
from proxmox_client.emulator.state.node import Node

PROXY_TIMEOUT: Final = 30.0
"""Seconds that a node waits for the answer of another node."""
NO_FILE_SYSTEM: Final = (
    "RPCEnvironment init request failed: Unable to load access control list: Connection refused"
)
"""The error of every request to a node whose pmxcfs is stopped; it has no body."""
BROKEN_PIPE: Final = empty(596, "Broken pipe")
"""The response when pvedaemon breaks the connection, as for texts outside Latin-1."""


class FaultKind(StrEnum):
    """The kind of a fault."""

    SLOW = "slow"
    HANG = "hang"
    DROP = "drop"
    PROXY_TIMEOUT = "proxy-timeout"
    PROXY_REDIRECTS = "proxy-redirects"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    ERROR = "error"
    NO_BODY = "no-body"
    MALFORMED = "malformed"


BEFORE_REQUEST: Final = frozenset(
    {FaultKind.SLOW, FaultKind.HANG, FaultKind.UNAUTHENTICATED, FaultKind.FORBIDDEN}
    | {FaultKind.ERROR, FaultKind.NO_BODY}
)
BEFORE_PROXYING: Final = frozenset(
    {FaultKind.SLOW, FaultKind.HANG, FaultKind.PROXY_TIMEOUT, FaultKind.PROXY_REDIRECTS}
)
AFTER_RESPONSE: Final = frozenset({FaultKind.DROP, FaultKind.MALFORMED})


@dataclass(slots=True)
class Fault:
    """One fault and the requests that it applies to."""

    kind: FaultKind
    node: str = ""
    """The node; empty means every node."""
    method: str = ""
    path: str = ""
    """A regular expression, matched from the start of the path; empty means every path."""
    percent: float = 100.0
    """The share of the matching requests that fail."""
    times: int | None = None
    """The number of requests that fail before the fault is over; None means no limit."""
    seconds: float = 10.0
    """The delay of the kind `slow`."""
    message: str = "emulated failure"
    shape: str = "html"
    """The name of the body of the kind `malformed`, of MALFORMATIONS."""
    hits: int = 0
    _pattern: re.Pattern[str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.shape not in MALFORMATIONS:
            raise ValueError(f"{self.shape!r} is not one of {', '.join(MALFORMATIONS)}")

    def matches(self, node: str, method: str, path: str) -> bool:
        """Return whether the fault may apply to a request."""
        if self.times is not None and self.hits >= self.times:
            return False
        if self.node not in ("", node) or self.method not in ("", method):
            return False
        self._pattern = self._pattern or re.compile(self.path)
        return self._pattern.match(path.removeprefix("/api2/json")) is not None


class Faults:
    """The faults of one cluster; they can be added and removed while it runs.

    Random choices come from the seed: the same requests in the same order fail in every run.
    """

    def __init__(self, clock: Clock, seed: int) -> None:
        self._clock = clock
        self._random = random.Random(seed)  # noqa: S311 - which request fails is no secret
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        """Add a fault; return it for `remove`."""
        self._faults.append(fault)
        return fault

    def remove(self, fault: Fault) -> None:
        """Remove a fault; raise ValueError if it is not active."""
        self._faults.remove(fault)

    def clear(self) -> None:
        """Remove all faults."""
        self._faults.clear()

    async def before_request(self, node: str, method: str, path: str) -> Response | None:
        """Apply the faults of the node that receives a request.

        Return a response to send instead of handling the request, or None. Raise ApiError or
        Unauthorized for the kinds that stand for an error of Proxmox.
        """
        for fault in self._hits(node, method, path, BEFORE_REQUEST):
            match fault.kind:
                case FaultKind.SLOW:
                    await self._clock.sleep(fault.seconds)
                case FaultKind.HANG:
                    return NO_RESPONSE
                case FaultKind.UNAUTHENTICATED:
                    raise Unauthorized("Authentication failed!")
                case FaultKind.FORBIDDEN:
                    raise Forbidden(fault.message)
                case FaultKind.NO_BODY:
                    return empty(500, fault.message)
                case _:
                    raise ApiError(fault.message)
        return None

    async def before_proxying(self, node: Node, method: str, path: str) -> Response | None:
        """Apply the faults between the receiving node and the node that handles a request.

        Returns the error response of the proxy, or None.
        """
        if not node.online:
            return empty(595, "No route to host")
        if "pmxcfs" in node.stopped:
            return empty(500, NO_FILE_SYSTEM)
        for fault in self._hits(node.name, method, path, BEFORE_PROXYING):
            match fault.kind:
                case FaultKind.PROXY_REDIRECTS:
                    return empty(599, "Too many redirections")
                case FaultKind.SLOW if fault.seconds < PROXY_TIMEOUT:
                    await self._clock.sleep(fault.seconds)
                case _:
                    await self._clock.sleep(PROXY_TIMEOUT)
                    return empty(596, "Connection timed out")
        return None

    def after_response(self, node: str, method: str, path: str, response: Response) -> Response:
        """Return the response after the request was handled: cut off, or with another body."""
        for fault in self._hits(node, method, path, AFTER_RESPONSE):
            if fault.kind is FaultKind.DROP:
                return replace(response, delivery=Delivery.CUT_OFF)
            response = malformed(response, fault.shape)
        return response

    def _hits(
        self, node: str, method: str, path: str, kinds: frozenset[FaultKind]
    ) -> Iterator[Fault]:
        for fault in list(self._faults):
            is_candidate = fault.kind in kinds and fault.matches(node, method, path)
            if is_candidate and self._random.random() * 100 < fault.percent:
                fault.hits += 1
                yield fault
