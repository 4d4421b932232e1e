"""What can go wrong between the client's request and the server's reply.

* BridgeError
  * Unreachable           nothing was sent: refused, unresolved, timed out while connecting
    * CertificateRefused  the server's certificate is not trusted; waiting will not change that
    * ProxyRefused        the proxy on the way does not let us through; neither will this
  * Lost                  the request was sent and the connection broke before the reply
  * Silent                nothing came for as long as we wait
  * Redirected            the server points somewhere the key must not go
  * NoReply               the server finished without a JSON-RPC reply
  * Refused               an HTTP status that is not a success, with no JSON-RPC reply in it
    * Busy                429: not handled, to be sent again later
    * Unavailable         502, 503, 504: perhaps handled
  * Closing               the client closed its end before the reply came

The text of each goes to the client: what happened, and after it what to do.
"""

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
    "Silent",
    "Unavailable",
    "Unreachable",
    "refusal",
]

DOCTOR = "`pvemcp-bridge doctor` shows where it fails."


class BridgeError(Exception):
    """The base of what the bridge answers itself."""

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
        """The same for programs."""
        known = {"reason": type(self).__name__, "status": self.status, "hint": self.advice}
        return {name: value for name, value in known.items() if value is not None}

    def reply_to(self, request: Message) -> str:
        """The one reply that a request gets when this happened to it."""
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
    """The proxy on the way does not let us through."""

    hint = "Check HTTPS_PROXY and HTTP_PROXY, or name the server in NO_PROXY to go without a proxy."


class Lost(BridgeError):
    """The request was sent and the connection broke before the reply."""

    hint = "It may or may not have been carried out: look before you repeat it."


class Silent(Lost):
    """Nothing came for as long as we wait."""

    hint = (
        "It may or may not have been carried out: look before you repeat it. "
        "--timeout (MCP_TIMEOUT) sets how long the bridge waits."
    )


class Redirected(BridgeError):
    """The server points somewhere the key must not go."""

    hint = "Use the address it points to as the URL, if you trust it."


class NoReply(BridgeError):
    """The server finished without a JSON-RPC reply."""

    hint = f"Check that the URL is that of an MCP endpoint. {DOCTOR}"


class Refused(BridgeError):
    """An HTTP status that is not a success."""

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
        """The same for programs, with the wait the server asked for."""
        wait = {} if self.retry_after is None else {"retry_after_seconds": self.retry_after}
        return super().data | wait

    def reply_to(self, request: Message) -> str:
        """The server's own words, when they are a JSON-RPC reply."""
        return self.reply.text if self.reply else super().reply_to(request)


class Busy(Refused):
    """The server asks for fewer requests; this one was not handled."""


class Unavailable(Refused):
    """The server, or a proxy before it, cannot answer now."""


class Closing(BridgeError):
    """The bridge ends before the reply came."""

    hint = "It may or may not have been carried out: look before you repeat it."


_REFUSALS: dict[int, tuple[str, str]] = {
    400: ("The server found the request malformed", "Check the versions of client and server."),
    401: (
        "The server rejected the API key",
        "Give a valid key with MCP_API_KEY or --api-key-file; API Access of the server makes keys.",
    ),
    403: (
        "The server does not allow this API key here",
        "Ask the administrator which addresses, clusters and tools the key may use.",
    ),
    404: ("There is nothing at this URL", "Check the URL; the endpoint usually ends in /mcp."),
    405: ("This URL takes no MCP messages", "Check the URL; the endpoint usually ends in /mcp."),
    413: ("The request is too large for the server", "Send less at once."),
    429: ("The server asks for fewer requests", "Wait, then try again."),
    502: ("The proxy before the server reached no server", "Check that the server runs."),
    503: (
        "The server is not available now",
        "It may be starting, or switched off in its settings.",
    ),
    504: ("The proxy before the server got no answer in time", Lost.hint),
}


def refusal(
    status: int, *, reply: Message | None, retry_after: float | None, excerpt: str
) -> Refused:
    """The error for an HTTP status, with what the server said about it."""
    general = ("The server failed", Lost.hint) if status >= 500 else ("The server refused", DOCTOR)
    fact, hint = _REFUSALS.get(status, general)
    said = f': "{excerpt}"' if excerpt else ""
    kind = Busy if status == 429 else Unavailable if status in (502, 503, 504) else Refused
    if retry_after is not None:
        hint = f"Try again in {retry_after:.0f} s."
    return kind(
        f"{fact} (HTTP {status}){said}.",
        status=status,
        hint=hint,
        reply=reply,
        retry_after=retry_after,
    )
