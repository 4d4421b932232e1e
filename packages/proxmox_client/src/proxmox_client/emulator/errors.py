"""What the emulated API answers when it does not do what was asked.

* ApiError               a status with a message, which Proxmox puts in the status line
  * BadParameters        400, with what is wrong by name of the parameter
* SignInRefused          401, late
* TaskFailed             how a task ends that does not succeed
"""

from collections.abc import Mapping


class ApiError(Exception):
    """An answer that is not a success; 500 is how Proxmox says most of them."""

    def __init__(self, message: str, *, status: int = 500) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


class BadParameters(ApiError):
    """400, with what is wrong by name of the parameter."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__("Parameter verification failed.", status=400)
        self.errors = dict(errors)


class Refused(ApiError):
    """403, naming the path and the privileges where Proxmox does."""

    def __init__(self, detail: str | None = None) -> None:
        suffix = f" ({detail})" if detail else ""
        super().__init__(f"Permission check failed{suffix}", status=403)


class SignInRefused(Exception):
    """401; only a refused password has a body."""

    def __init__(self, reason: str, *, with_body: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.with_body = with_body


class TaskFailed(Exception):
    """How a task ends that does not succeed."""
