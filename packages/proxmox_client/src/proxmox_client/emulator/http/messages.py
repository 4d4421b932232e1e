"""Requests and responses."""

from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus

JSON = "application/json;charset=UTF-8"


@dataclass(frozen=True, slots=True)
class Request:
    """One request, read whole."""

    method: str
    path: str
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Ending(Enum):
    """What becomes of the connection while the response is sent."""

    WHOLE = "whole"
    DROPPED = "dropped"
    """The connection breaks in the middle of the body."""
    SILENT = "silent"
    """Nothing is ever sent."""


@dataclass(frozen=True, slots=True)
class Response:
    """One response; the reason carries Proxmox's message."""

    status: int = 200
    reason: str = ""
    body: bytes = b""
    content_type: str | None = JSON
    headers: tuple[tuple[str, str], ...] = ()
    ending: Ending = Ending.WHOLE

    @property
    def phrase(self) -> str:
        """The text of the status line."""
        if self.reason:
            return self.reason.partition("\n")[0]
        known = {status.value: status.phrase for status in HTTPStatus}
        return known.get(self.status, "Unknown")

    @property
    def closes(self) -> bool:
        """Whether the server ends the connection after it."""
        return self.status >= 400


SILENCE = Response(ending=Ending.SILENT)


def empty(status: int, reason: str) -> Response:
    """A response without a body."""
    return Response(status, reason, content_type=None)
