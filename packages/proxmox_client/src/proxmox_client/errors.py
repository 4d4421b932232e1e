"""Errors of this package.

* ProxmoxError
  * Unreachable          no answer: connection refused, timed out or dropped
    * NodeSilent         the node of a read answers nothing else either
    * TlsError           no trusted connection could be made; nothing was sent
      * PlainPort        the port does not speak TLS
  * ResponseError        an answer that is not a success
    * Unauthenticated    401: the token, ticket or password is not accepted
    * Forbidden          403: the account lacks a privilege; names path and privileges
    * NotFound           the object does not exist (usually a 500)
    * BadParameters      400: parameters are rejected; names them
    * Conflict           the object is locked, exists already or is in the wrong state
      * OutdatedDigest   the configuration is not the one that the write was made for
    * NodeUnreachable    595 to 599: the host could not reach the node
    * MethodMissing      501: this version of Proxmox VE has no such method
    * NoQuorum           the cluster lacks quorum, so nothing can be written
    * AgentRefused       the guest agent answered, and refused the command
    * UnexpectedAnswer   a success whose body cannot be decoded
  * TaskFailed           a task was started and did not succeed
  * DeadlineExceeded     a deadline or timeout of this client expired
    * Delayed            the request waited for others of this process: no host is to blame
"""

import re
from collections.abc import Mapping, Sequence


class ProxmoxError(Exception):
    """Base class of all errors of this package."""


class Unreachable(ProxmoxError):
    """No host of the cluster gave an answer."""

    def __init__(self, host: str, message: str) -> None:
        super().__init__(f"{host}: {message}")
        self.host = host
        self.message = message


class NodeSilent(Unreachable):
    """The node of a read hangs: it answers nothing else either; its name is in `host`."""


class TlsError(Unreachable):
    """The certificate is not trusted, or the handshake failed; nothing was sent."""


class PlainPort(TlsError):
    """The port does not speak TLS: it is not the one of Proxmox, or a proxy ends TLS elsewhere."""


class ResponseError(ProxmoxError):
    """An answer that is not a success."""

    def __init__(
        self, status: int, reason: str, message: str, errors: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.errors = dict(errors or {})


class Unauthenticated(ResponseError):
    """The token, ticket or password is not accepted."""


class Forbidden(ResponseError):
    """The account lacks a privilege; any one of `privileges` on `path` is enough."""

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        errors: Mapping[str, str] | None = None,
        *,
        path: str = "",
        privileges: Sequence[str] = (),
    ) -> None:
        super().__init__(status, reason, message, errors)
        self.path = path
        self.privileges = tuple(privileges)


class NotFound(ResponseError):
    """The object does not exist."""


class BadParameters(ResponseError):
    """Parameters are rejected; `errors` gives the reasons by parameter name."""


class Conflict(ResponseError):
    """The object is locked, exists already or is in the wrong state."""


class OutdatedDigest(Conflict):
    """The configuration changed since its digest was read; nothing was written."""


class NodeUnreachable(ResponseError):
    """The host that received the request could not reach `node`."""

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        errors: Mapping[str, str] | None = None,
        *,
        node: str = "",
    ) -> None:
        super().__init__(status, reason, message, errors)
        self.node = node


class MethodMissing(ResponseError):
    """This version of Proxmox VE has no such method."""


class NoQuorum(ResponseError):
    """The cluster lacks quorum, so nothing can be written."""


class AgentRefused(ResponseError):
    """The guest agent answered that it doesn't know or doesn't allow the command."""


class UnexpectedAnswer(ResponseError):
    """A success whose body cannot be decoded."""


_WRITING = re.compile(r"unable to (?:open|create|write)|mkdir|rename")
_LONGEST_MESSAGE = 2_000  # characters that are looked at


def means_no_quorum(text: str) -> bool:
    """Return whether a message of Proxmox means that the cluster lacks quorum.

    Without quorum, its configuration file system is read-only: a line names a write, then a place
    there, then that permission was denied. A pattern for all three takes cubic time.
    """
    for line in text[:_LONGEST_MESSAGE].casefold().split("\n"):
        writing = _WRITING.search(line)
        place = line.find("/etc/pve/", writing.end()) if writing else -1
        if "no quorum" in line or (place >= 0 and "permission denied" in line[place:]):
            return True
    return False


class TaskFailed(ProxmoxError):
    """A task was started and did not succeed."""

    def __init__(self, upid: str, exit_status: str, log_tail: Sequence[str] = ()) -> None:
        super().__init__(f"Task {upid} failed: {exit_status}")
        self.upid = upid
        self.exit_status = exit_status
        self.log_tail = tuple(log_tail)

    @property
    def lacks_quorum(self) -> bool:
        """Whether it failed because the cluster lacks quorum."""
        return any(map(means_no_quorum, (self.exit_status, *self.log_tail)))


class DeadlineExceeded(ProxmoxError):
    """A deadline or timeout of this client expired; a write may or may not have happened."""


class Delayed(DeadlineExceeded):
    """The time ran out, which says nothing about the hosts: they were not asked, or are busy."""
