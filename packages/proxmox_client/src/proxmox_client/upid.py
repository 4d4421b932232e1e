"""Task identifiers: `UPID:node:pid:pstart:starttime:type:id:user:`."""

import re
from typing import Self

import msgspec

_UPID = re.compile(
    r"UPID:(?P<node>[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)"
    r":(?P<pid>[0-9A-Fa-f]{8}):(?P<pstart>[0-9A-Fa-f]{8,9}):(?P<started>[0-9A-Fa-f]{8})"
    # a slash, even encoded, would address another resource
    r":(?P<type>[^:/\s]+):(?P<id>[^:/\s]*):(?P<user>[^:/!\s]+)(?:!(?P<token>[^:/\s]+))?:",
    re.ASCII,
)


class Upid(msgspec.Struct, frozen=True):
    """A parsed task identifier; `node` is the node that runs the task, `start_time` an epoch."""

    node: str
    pid: int
    pstart: int
    start_time: int
    type: str
    id: str
    user: str
    token: str
    text: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a UPID, or raise ValueError."""
        match = _UPID.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not a task identifier (UPID)")
        return cls(
            node=match["node"],
            pid=int(match["pid"], 16),
            pstart=int(match["pstart"], 16),
            start_time=int(match["started"], 16),
            type=match["type"],
            id=match["id"],
            user=match["user"],
            token=match["token"] or "",
            text=text,
        )

    def __str__(self) -> str:
        return self.text
