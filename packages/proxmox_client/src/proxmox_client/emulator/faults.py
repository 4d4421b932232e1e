"""Everything that goes wrong on demand."""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from proxmox_client.emulator.clock import Clock
from proxmox_client.emulator.errors import ApiError, SignInRefused
from proxmox_client.emulator.http.messages import SILENCE, Ending, Response, empty
from proxmox_client.emulator.state.node import Node

PROXY_PATIENCE: Final = 30.0
"""Seconds a node waits for another one."""


class FaultKind(StrEnum):
    """What can go wrong with a request."""

    SLOW = "slow"
    HANG = "hang"
    DROP = "drop"
    PROXY_TIMEOUT = "proxy-timeout"
    PROXY_REDIRECTS = "proxy-redirects"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    ERROR = "error"


ON_ARRIVAL: Final = frozenset(
    {FaultKind.SLOW, FaultKind.HANG, FaultKind.UNAUTHENTICATED, FaultKind.FORBIDDEN}
    | {FaultKind.ERROR}
)
ON_THE_WAY: Final = frozenset(
    {FaultKind.SLOW, FaultKind.HANG, FaultKind.PROXY_TIMEOUT, FaultKind.PROXY_REDIRECTS}
)
ON_LEAVING: Final = frozenset({FaultKind.DROP})


@dataclass(slots=True)
class Fault:
    """One thing that goes wrong, for the requests it concerns."""

    kind: FaultKind
    node: str = ""
    """The node it happens on; none means any."""
    method: str = ""
    path: str = ""
    """A pattern the path must match, from its start; none means any."""
    percent: float = 100.0
    """How many of the requests it hits."""
    times: int | None = None
    """How often it happens before it is over."""
    seconds: float = 10.0
    """How slow."""
    message: str = "emulated failure"
    hits: int = 0
    _pattern: re.Pattern[str] | None = field(default=None, repr=False)

    def concerns(self, node: str, method: str, path: str) -> bool:
        """Whether a request is among those it may hit."""
        if self.times is not None and self.hits >= self.times:
            return False
        if self.node not in ("", node) or self.method not in ("", method):
            return False
        self._pattern = self._pattern or re.compile(self.path)
        return self._pattern.match(path.removeprefix("/api2/json")) is not None


class Faults:
    """The faults of one cluster; they may come and go while it runs."""

    def __init__(self, clock: Clock, seed: int) -> None:
        self._clock = clock
        self._random = random.Random(seed)  # noqa: S311 - which request fails is no secret
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        """Let something go wrong from now on."""
        self._faults.append(fault)
        return fault

    def remove(self, fault: Fault) -> None:
        """Let it be right again."""
        self._faults.remove(fault)

    def clear(self) -> None:
        """Let everything be right again."""
        self._faults.clear()

    async def meet(self, node: str, method: str, path: str) -> Response | None:
        """What goes wrong where the request arrives."""
        for fault in self._hitting(node, method, path, ON_ARRIVAL):
            if (response := await self._happen(fault)) is not None:
                return response
        return None

    async def on_the_way(self, node: Node, method: str, path: str) -> Response | None:
        """What goes wrong between the node that was asked and the one that answers."""
        if not node.online:
            return empty(595, "No route to host")
        for fault in self._hitting(node.name, method, path, ON_THE_WAY):
            match fault.kind:
                case FaultKind.PROXY_REDIRECTS:
                    return empty(599, "Too many redirections")
                case FaultKind.SLOW if fault.seconds < PROXY_PATIENCE:
                    await self._clock.sleep(fault.seconds)
                case _:
                    await self._clock.sleep(PROXY_PATIENCE)
                    return empty(596, "Connection timed out")
        return None

    def leave(self, node: str, method: str, path: str, response: Response) -> Response:
        """The response as it leaves the node: whole, or broken off after the work was done."""
        for _ in self._hitting(node, method, path, ON_LEAVING):
            return replace(response, ending=Ending.DROPPED)
        return response

    def _hitting(
        self, node: str, method: str, path: str, kinds: frozenset[FaultKind]
    ) -> Iterator[Fault]:
        for fault in list(self._faults):
            is_hit = fault.kind in kinds and fault.concerns(node, method, path)
            if is_hit and self._random.random() * 100 < fault.percent:
                fault.hits += 1
                yield fault

    async def _happen(self, fault: Fault) -> Response | None:
        match fault.kind:
            case FaultKind.SLOW:
                await self._clock.sleep(fault.seconds)
            case FaultKind.HANG:
                return SILENCE
            case FaultKind.UNAUTHENTICATED:
                raise SignInRefused("Authentication failed!")
            case FaultKind.FORBIDDEN:
                raise ApiError(f"Permission check failed ({fault.message})", status=403)
            case FaultKind.ERROR:
                raise ApiError(fault.message)
        return None
