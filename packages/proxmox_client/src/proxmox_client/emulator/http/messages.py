"""HTTP requests and responses."""

from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus

JSON = "application/json;charset=UTF-8"
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request with its complete body."""

    method: str
    path: str
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Delivery(Enum):
    """How much of a response is sent."""

    COMPLETE = "complete"
    CUT_OFF = "cut off"
    """The connection breaks in the middle of the body."""
    NEVER = "never"
    """Nothing is sent."""


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response; the reason phrase holds Proxmox's message."""

    status: int = 200
    reason: str = ""
    body: bytes = b""
    content_type: str | None = JSON
    headers: tuple[tuple[str, str], ...] = ()
    delivery: Delivery = Delivery.COMPLETE

    @property
    def phrase(self) -> str:
        """The text of the status line."""
        if self.reason:
            return self.reason.partition("\n")[0]
        return _PHRASES.get(self.status, "Unknown")

    @property
    def closes(self) -> bool:
        """Whether the server closes the connection after it."""
        return self.status >= 400


NO_RESPONSE = Response(delivery=Delivery.NEVER)


def empty(status: int, reason: str) -> Response:
    """Return a response without a body."""
    return Response(status, reason, content_type=None)
