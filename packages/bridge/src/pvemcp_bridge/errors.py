"""Errors between the client's request and the server's reply.

* BridgeError
  * Unreachable           nothing was sent: connection refused, name not resolved, connect timeout
    * CertificateRefused  the server's certificate is not trusted; a retry cannot help
    * ProxyRefused        the proxy refuses the connection; a retry cannot help
  * Lost                  the request was sent and the connection broke before the reply
  * Silent                nothing arrived within the read timeout
  * Redirected            the server redirects to an address that must not get the key
  * NoReply               the server's response holds no JSON-RPC reply
  * Refused               an HTTP error status without a JSON-RPC reply
    * Busy                429: rate limited; the request was not processed
    * Unavailable         502, 503, 504: the request may have been processed
  * SignInRequired        the user has to sign in, in a browser
  * SignInFailed          the sign-in failed, or the server's sign-in cannot be used
  * Closing               the bridge ended before the reply arrived

The client receives the text of an error: the fact, then the next step. The name of the class is
part of the reply (`data.reason`).
"""

import asyncio
from typing import Any, ClassVar

from pvemcp_bridge.messages import INTERNAL_ERROR, Message, error_text

__all__ = [
    "BridgeError",
    "Busy",
    "CertificateRefused",
    "Closing",
    "Lost",
    "NoReply",
    "ProxyRefused",
    "Redirected",
    "Refused",
    "SignInFailed",
    "SignInRequired",
    "Silent",
    "Unavailable",
    "Unreachable",
    "refusal",
]

DOCTOR = "`pvemcp-bridge doctor` shows where it fails."
_UNKNOWN_OUTCOME = "It may or may not have been carried out: check before you repeat it."

_AGAIN = "Try again."


class BridgeError(Exception):
    """Base of the errors that the bridge sends as the reply to a request."""

    hint: ClassVar[str] = DOCTOR

    def __init__(self, fact: str, *, status: int | None = None, hint: str | None = None) -> None:
        super().__init__(fact)
        self.fact = fact
        self.status = status
        self.advice = self.hint if hint is None else hint

    def __str__(self) -> str:
        return f"{self.fact} {self.advice}"

    @property
    def data(self) -> dict[str, Any]:
        """The same facts for programs."""
        values = {"reason": type(self).__name__, "status": self.status, "hint": self.advice}
        return {name: value for name, value in values.items() if value is not None}

    def reply_to(self, request: Message) -> str:
        """Return the JSON-RPC error that answers the request; only a tool can change anything."""
        if request.method != "tools/call":
            self.advice = self.advice.replace(_UNKNOWN_OUTCOME, _AGAIN)
        return error_text(request.raw_id, INTERNAL_ERROR, str(self), self.data)


class Unreachable(BridgeError):
    """Nothing was sent."""

    hint = f"Check that the server runs and that the URL is right, then try again. {DOCTOR}"


class CertificateRefused(Unreachable):
    """The server's certificate is not trusted."""

    hint = (
        "Give the server's CA with --ca FILE (MCP_CA), or pin its certificate with --fingerprint "
        "(MCP_FINGERPRINT); `pvemcp-bridge doctor` shows the fingerprint."
    )


class ProxyRefused(Unreachable):
    """The proxy refuses the connection."""

    hint = "Check HTTPS_PROXY and HTTP_PROXY, or name the server in NO_PROXY to go without a proxy."


class Lost(BridgeError):
    """The request was sent and the connection broke before the reply."""

    hint = _UNKNOWN_OUTCOME


class Silent(Lost):
    """Nothing arrived within the read timeout."""

    hint = f"{_UNKNOWN_OUTCOME} --timeout (MCP_TIMEOUT) sets how long the bridge waits."


class Redirected(BridgeError):
    """The server redirects to an address that must not get the key."""

    hint = "If you trust the new address, use it as the URL."


class NoReply(BridgeError):
    """The server's response holds no JSON-RPC reply."""

    hint = f"Check that the URL is that of an MCP endpoint. {DOCTOR}"


class Refused(BridgeError):
    """An HTTP error status."""

    def __init__(
        self,
        fact: str,
        *,
        status: int,
        hint: str | None = None,
        reply: Message | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(fact, status=status, hint=hint)
        self.reply = reply
        self.retry_after = retry_after

    @property
    def data(self) -> dict[str, Any]:
        """The same facts for programs, with the seconds of `Retry-After`."""
        wait = {} if self.retry_after is None else {"retry_after_seconds": self.retry_after}
        return super().data | wait

    def reply_to(self, request: Message) -> str:
        """Return the server's own reply if it sent one."""
        return self.reply.text if self.reply else super().reply_to(request)


class Busy(Refused):
    """The server rate-limits requests; this one was not processed."""


class Unavailable(Refused):
    """The server, or a proxy in front of it, cannot answer now."""


class SignInRequired(BridgeError):
    """The user has to sign in; `signed_in` is done when the sign-in has ended."""

    hint = "Run `pvemcp-bridge login` with the same URL, or set a key with MCP_API_KEY."

    def __init__(
        self,
        fact: str,
        *,
        hint: str | None = None,
        address: str = "",
        signed_in: asyncio.Task[None] | None = None,
    ) -> None:
        super().__init__(fact, hint=hint)
        self.address = address
        self.signed_in = signed_in

    @property
    def data(self) -> dict[str, Any]:
        """The same facts for programs, with the address to open."""
        return super().data | ({"address": self.address} if self.address else {})


class SignInFailed(BridgeError):
    """The sign-in failed, or the server's sign-in cannot be used."""

    hint = "Try again in a minute, or run `pvemcp-bridge login`."


class Closing(BridgeError):
    """The bridge ended before the reply arrived."""

    hint = _UNKNOWN_OUTCOME


_REFUSALS: dict[int, tuple[str, str]] = {
    400: (
        "The server rejected the request as malformed",
        "Check the versions of client and server.",
    ),
    401: (
        "The server rejected the API key or sign-in",
        "Set a valid key with MCP_API_KEY or --api-key-file, or run `pvemcp-bridge login`.",
    ),
    403: (
        "The server does not allow this with your API key or sign-in",
        "Ask the administrator which addresses, clusters and tools the key may use.",
    ),
    404: ("There is nothing at this URL", "Check the URL; the endpoint usually ends in /mcp."),
    405: ("This URL accepts no MCP messages", "Check the URL; the endpoint usually ends in /mcp."),
    413: ("The request is too large for the server", "Send less at once."),
    429: ("The server rate-limits requests", "Wait, then try again."),
    502: ("The reverse proxy cannot reach the server", "Check that the server runs."),
    503: (
        "The server is not available now",
        "It may be starting, or disabled in its settings.",
    ),
    504: ("The reverse proxy got no answer from the server in time", _UNKNOWN_OUTCOME),
}


def refusal(
    status: int, *, reply: Message | None, retry_after: float | None, excerpt: str
) -> Refused:
    """Return the error for an HTTP status, with an excerpt of the server's response."""
    general = (
        ("The server failed", _UNKNOWN_OUTCOME) if status >= 500 else ("The server refused", DOCTOR)
    )
    fact, hint = _REFUSALS.get(status, general)
    quoted = f': "{excerpt.removesuffix(".")}"' if excerpt else ""
    kind = Busy if status == 429 else Unavailable if status in (502, 503, 504) else Refused
    if retry_after is not None:
        hint = f"Try again in {retry_after:.0f} s."
    return kind(
        f"{fact} (HTTP {status}){quoted}.",
        status=status,
        hint=hint,
        reply=reply,
        retry_after=retry_after,
    )
