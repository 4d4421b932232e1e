"""The errors of the emulated API.

* ApiError               a status and a message, which Proxmox puts in the status line
  * BadParameters        400, with an error text by parameter
  * Forbidden            403
  * MethodNotImplemented 501
* Unauthorized           401, answered after a delay
* TaskFailed             the outcome of a task that fails
"""

from collections.abc import Mapping


class ApiError(Exception):
    """An error response; Proxmox answers most errors with status 500."""

    def __init__(self, message: str, *, status: int = 500) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


class BadParameters(ApiError):
    """A request with invalid parameters: 400, with an error text by parameter."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__("Parameter verification failed.", status=400)
        self.errors = dict(errors)


class Forbidden(ApiError):
    """A request without permission: 403, with path and privileges where Proxmox names them."""

    def __init__(self, detail: str | None = None) -> None:
        suffix = f" ({detail})" if detail else ""
        super().__init__(f"Permission check failed{suffix}", status=403)


class MethodNotImplemented(ApiError):
    """A request to an endpoint that does not exist or is not emulated: 501."""

    def __init__(self, method: str, path: str) -> None:
        super().__init__(f"Method '{method} {path}' not implemented", status=501)


class Unauthorized(Exception):
    """A failed sign-in: 401; only the answer to a wrong password has a body."""

    def __init__(self, reason: str, *, with_body: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.with_body = with_body


class TaskFailed(Exception):
    """The outcome of a task that fails."""
