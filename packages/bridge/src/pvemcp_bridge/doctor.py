"""Step-by-step test of a server: where it fails and what to do about it."""

import socket
import statistics
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from pvemcp_bridge import tls
from pvemcp_bridge.annotations import MOST_PAGES, ToolAnnotations
from pvemcp_bridge.errors import (
    DOCTOR,
    BridgeError,
    CertificateRefused,
    NoReply,
    Refused,
    SignInFailed,
    SignInRequired,
    Unreachable,
)
from pvemcp_bridge.exchange import Exchange, OutgoingRequest, Reply
from pvemcp_bridge.headers import mirrored_headers
from pvemcp_bridge.jsontext import as_object
from pvemcp_bridge.logs import Masker
from pvemcp_bridge.messages import VERSION_KEY, Message, request
from pvemcp_bridge.oauth.account import UserAccount
from pvemcp_bridge.oauth.sign_in import describe
from pvemcp_bridge.target import Target
from pvemcp_bridge.transport import Transport

__all__ = ["Finding", "examine"]

_STATELESS = "2026-07-28"
_HANDSHAKE = "2025-11-25"
_UNSUPPORTED = (400, 404, 405, 406, 415, 422, 501)  # statuses of a server without an era
_SAMPLES = 5
_RETRY_SECONDS = 3.0
_META = {VERSION_KEY: _STATELESS, "io.modelcontextprotocol/clientCapabilities": {}}
_CLIENT = {
    "protocolVersion": _HANDSHAKE,
    "capabilities": {},
    "clientInfo": {"name": "pvemcp-bridge doctor", "version": "1"},
}


@dataclass(frozen=True)
class Finding:
    """Result of one step."""

    name: str
    text: str
    ok: bool = True
    is_warning: bool = False


async def examine(target: Target, mask: Masker) -> AsyncIterator[Finding]:
    """Yield warnings, then the findings in order; the first failure is the last."""
    for risk in target.risks:
        yield Finding("trust", risk, is_warning=True)
    account = None if target.has_key else UserAccount(target, mask.add, is_interactive=False)
    async with Transport(target, account) as transport:
        probe = _Probe(Exchange(transport, ToolAnnotations(), target.read_timeout, mask))
        try:
            versions = await probe.versions()
            for finding in [*_passed_steps(target), _credential(account)]:
                yield finding
            yield Finding("protocol", ", ".join(versions))
            yield await probe.tools()
            yield await probe.latency()
        except BridgeError as error:
            for finding in _failed_steps(target, error):
                yield finding
        finally:
            await probe.close()


def _passed_steps(target: Target) -> list[Finding]:
    findings = [Finding("reach", f"{target.origin} answers")]
    if target.url.startswith("https"):
        fingerprint = _fingerprint(target)
        shown = f"; fingerprint {fingerprint}" if fingerprint else ""
        findings.append(Finding("TLS", f"{_trust(target)}{shown}"))
    return findings


def _credential(account: UserAccount | None) -> Finding:
    """Report the accepted key or sign-in."""
    credentials = account and account.credentials
    if account and credentials and credentials.access_token:
        return Finding("sign-in", describe(credentials, account.store))
    return Finding("key", "accepted" if account is None else "none, and the server needs none")


def _failed_steps(target: Target, error: BridgeError) -> list[Finding]:
    """Return the steps up to the one that the error belongs to."""
    passed = _passed_steps(target)
    text = str(error).replace(f" {DOCTOR}", "")  # the user is running it already
    if isinstance(error, CertificateRefused):
        fingerprint = _fingerprint(target)
        shown = f" Its fingerprint is {fingerprint}." if fingerprint else ""
        return [passed[0], Finding("TLS", f"{text}{shown}", ok=False)]
    if isinstance(error, SignInRequired | SignInFailed):
        return [*passed, Finding("sign-in", text, ok=False)]
    if isinstance(error, Unreachable):
        return [Finding("reach", f"{target.origin}: {text}", ok=False)]
    if isinstance(error, Refused) and error.status in (401, 403):
        return [*passed, Finding("key", text, ok=False)]
    if isinstance(error, Refused) and (error.status or 0) >= 500:
        return [*passed, Finding("server", text, ok=False)]
    return [*passed, Finding("protocol", text, ok=False)]


def _trust(target: Target) -> str:
    if target.trust.fingerprint:
        return "pinned"
    return "not verified (--insecure)" if target.trust.insecure else "verified"


def _fingerprint(target: Target) -> str:
    """Return the fingerprint of the server's certificate; empty when there is no handshake.

    Nothing else is sent.
    """
    parts = urlsplit(target.url)
    try:
        with (
            socket.create_connection((parts.hostname or "", parts.port or 443), 10) as plain,
            tls.unverified().wrap_socket(plain, server_hostname=parts.hostname) as connection,
        ):
            certificate = connection.getpeercert(binary_form=True) or b""
    except OSError:  # of TLS too; the step that fails says why
        return ""
    return tls.format_fingerprint(sha256(certificate).hexdigest())


class _Probe:
    """Requests of the test, in an era that the server supports."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._stateless = False
        self._session: dict[str, str] = {}

    async def versions(self) -> list[str]:
        """Return the supported protocol versions, by discovery and by a handshake.

        Raise NoReply when there is none, as at another path of the server.
        """
        versions: list[str] = []
        self._stateless = True
        discovered = (await self._request("server/discover", {"_meta": _META})).message.result
        versions += _texts(discovered.get("supportedVersions"))
        self._stateless = bool(versions)
        opened = await self._request("initialize", _CLIENT, handshake=True)
        for version in _texts([opened.message.result.get("protocolVersion")]):
            versions.append(f"{version} by handshake")
            self._session = {
                "mcp-protocol-version": version,
                "mcp-session-id": opened.headers.get("mcp-session-id", ""),
            }
        if not versions:
            raise NoReply("This address serves no protocol version that the bridge supports.")
        return versions

    async def tools(self) -> Finding:
        """Report the tools that the key may use."""
        names: list[str] = []
        cursor: dict[str, Any] = {}
        for _ in range(MOST_PAGES):
            result = (await self._request("tools/list", self._params(cursor))).message.result
            tools = result.get("tools")
            names += _texts(
                [as_object(tool).get("name") for tool in tools] if isinstance(tools, list) else []
            )
            if not result.get("nextCursor"):
                break
            cursor = {"cursor": result["nextCursor"]}
        first = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
        return Finding("tools", f"{len(names)}: {first}" if names else "none for this key")

    async def latency(self) -> Finding:
        """Measure the median time of a round trip."""
        method = "server/discover" if self._stateless else "ping"
        times = []
        for _ in range(_SAMPLES):
            start = time.perf_counter()
            await self._request(method, self._params({}))
            times.append((time.perf_counter() - start) * 1000)
        return Finding("latency", f"{statistics.median(times):.1f} ms (median of {_SAMPLES})")

    async def close(self) -> None:
        """End the session."""
        if self._session.get("mcp-session-id"):
            try:
                async with self._exchange.transport.send("DELETE", self._session, read_timeout=2.0):
                    pass
            except BridgeError:
                return  # the server is gone, and its session with it

    def _params(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return {**params, "_meta": _META} if self._stateless else dict(params)

    async def _request(
        self, method: str, params: Mapping[str, Any], *, handshake: bool = False
    ) -> Reply:
        message = request(f"doctor {method}", method, params)
        stateless = self._stateless and not handshake
        headers = mirrored_headers(message, _STATELESS, {}) if stateless else self._session
        try:
            return await self._exchange.request(
                OutgoingRequest(message, headers, _discard, _RETRY_SECONDS)
            )
        except Refused as refused:
            if refused.reply and refused.status in _UNSUPPORTED:
                return Reply(refused.reply)  # the server does not support this era
            raise


def _texts(values: Any) -> list[str]:
    """Return the texts of a list; the server may have sent anything."""
    return [value for value in values if isinstance(value, str)] if isinstance(values, list) else []


async def _discard(_: Message) -> None:
    """Discard messages that precede a reply; they are no findings."""
