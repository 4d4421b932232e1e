"""Tasks and their UPIDs."""

from dataclasses import dataclass, field
from typing import Final

KILLED: Final = "unexpected status"
"""The exit status of a task that was stopped, or whose node failed: its worker wrote none."""


@dataclass(slots=True)
class Task:
    """A running or finished task of a node."""

    node: str
    pid: int
    pstart: int
    started: int
    type: str
    id: str
    user: str
    """User ID of its owner, or token ID (user!token)."""
    ended: int | None = None
    outcome: str = ""
    log: list[str] = field(default_factory=list)
    warnings: int = 0
    stopping: bool = False

    @property
    def upid(self) -> str:
        """Its unique ID in the cluster."""
        head = f"UPID:{self.node}:{self.pid:08X}:{self.pstart:08X}:{self.started:08X}"
        return f"{head}:{self.type}:{_escaped(self.id)}:{self.user}:"

    @property
    def running(self) -> bool:
        return self.ended is None

    @property
    def ok(self) -> bool:
        """Whether it succeeded, with or without warnings."""
        return self.outcome == "OK" or self.outcome.startswith("WARNINGS")

    @property
    def userid(self) -> str:
        return self.user.partition("!")[0]

    @property
    def tokenid(self) -> str:
        return self.user.partition("!")[2]

    def finish(self, outcome: str, when: float) -> None:
        """Mark it as finished and write the last line of its log; a killed task writes none."""
        self.outcome = outcome
        self.ended = int(when)
        if outcome != KILLED:
            self.log.append(f"TASK {outcome}" if self.ok else f"TASK ERROR: {outcome}")


def _escaped(text: str) -> str:
    return text.replace(":", "\\x3a").replace("/", "\\x2f")


def node_of(upid: str) -> str | None:
    """Return the node in a UPID, or None if the text is not a UPID."""
    fields = upid.split(":")
    has_shape = len(fields) == 9 and fields[0] == "UPID" and fields[8] == ""
    if not has_shape or not all(_is_hex(number) for number in fields[2:5]):
        return None
    return fields[1]


def _is_hex(text: str) -> bool:
    return len(text) >= 8 and all(digit in "0123456789ABCDEFabcdef" for digit in text)
