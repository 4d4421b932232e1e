"""Tries a server step by step and says where it fails and what to do about it."""

import socket
import ssl
import statistics
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from pvemcp_bridge import retry, tls
from pvemcp_bridge.annotations import Tools
from pvemcp_bridge.errors import DOCTOR, BridgeError, CertificateRefused, Refused, Unreachable
from pvemcp_bridge.exchange import Exchange, Question, Reply
from pvemcp_bridge.headers import mirrored
from pvemcp_bridge.messages import VERSION_KEY, Message, request
from pvemcp_bridge.target import Target
from pvemcp_bridge.transport import Transport

__all__ = ["Finding", "examine"]

_STATELESS = "2026-07-28"
_HANDSHAKE = "2025-11-25"
_SAMPLES = 5
_HURRY = retry.Patience(3.0)
_META = {VERSION_KEY: _STATELESS, "io.modelcontextprotocol/clientCapabilities": {}}
_CLIENT = {
    "protocolVersion": _HANDSHAKE,
    "capabilities": {},
    "clientInfo": {"name": "pvemcp-bridge doctor", "version": "1"},
}


@dataclass(frozen=True)
class Finding:
    """One step: what was found, and whether it is as it should be."""

    name: str
    text: str
    ok: bool = True


async def examine(target: Target, mask: Callable[[str], str]) -> AsyncIterator[Finding]:
    """The findings in order; the first bad one is the last."""
    async with Transport(target) as transport:
        visit = _Visit(Exchange(transport, Tools(), target.silence, mask))
        try:
            versions = await visit.versions()
            for finding in _reached(target):
                yield finding
            yield Finding("protocol", ", ".join(versions))
            yield await visit.tools()
            yield await visit.latency()
        except BridgeError as error:
            for finding in _failed(target, error):
                yield finding
        finally:
            await visit.leave()


def _reached(target: Target) -> list[Finding]:
    findings = [Finding("reach", f"{target.origin} answers")]
    if target.url.startswith("https"):
        findings.append(Finding("TLS", f"{_trust(target)}; fingerprint {_fingerprint(target)}"))
    return [*findings, Finding("key", "accepted")]


def _failed(target: Target, error: BridgeError) -> list[Finding]:
    """The steps up to the one that the error belongs to."""
    reached = _reached(target)[:-1]
    said = str(error).replace(f" {DOCTOR}", "")  # whoever reads this has come here already
    if isinstance(error, CertificateRefused):
        shown = f"Its fingerprint is {_fingerprint(target)}."
        return [reached[0], Finding("TLS", f"{said} {shown}", ok=False)]
    if isinstance(error, Unreachable):
        return [Finding("reach", f"{target.origin}: {said}", ok=False)]
    if isinstance(error, Refused) and error.status in (401, 403):
        return [*reached, Finding("key", said, ok=False)]
    return [*reached, Finding("protocol", said, ok=False)]


def _trust(target: Target) -> str:
    if target.trust.fingerprint:
        return "pinned"
    return "not verified (--insecure)" if target.trust.insecure else "verified"


def _fingerprint(target: Target) -> str:
    """The fingerprint of the certificate shown, without sending the server anything."""
    parts = urlsplit(target.url)
    try:
        with (
            socket.create_connection((parts.hostname or "", parts.port or 443), 10) as plain,
            tls.unverified().wrap_socket(plain, server_hostname=parts.hostname) as connection,
        ):
            certificate = connection.getpeercert(binary_form=True) or b""
    except (OSError, ssl.SSLError) as error:
        return f"unknown ({error})"
    return tls.colons(sha256(certificate).hexdigest())


class _Visit:
    """What is asked of the server, in whichever era it speaks."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._stateless = False
        self._session: dict[str, str] = {}

    async def versions(self) -> list[str]:
        """The protocol versions it offers: by discovery, and by a handshake."""
        found: list[str] = []
        self._stateless = True
        discovered = (await self._ask("server/discover", {"_meta": _META})).message.result
        found += discovered.get("supportedVersions", [])
        self._stateless = bool(found)
        opened = await self._ask("initialize", _CLIENT, handshake=True)
        if version := opened.message.result.get("protocolVersion"):
            found.append(f"{version} by handshake")
            self._session = {
                "mcp-protocol-version": version,
                "mcp-session-id": opened.headers.get("mcp-session-id", ""),
            }
        return found or ["none that this bridge knows"]

    async def tools(self) -> Finding:
        """How many tools the key may use."""
        names: list[str] = []
        cursor: dict[str, Any] = {}
        while True:
            result = (await self._ask("tools/list", self._params(cursor))).message.result
            names += [str(tool.get("name")) for tool in result.get("tools", [])]
            if not result.get("nextCursor"):
                break
            cursor = {"cursor": result["nextCursor"]}
        some = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
        return Finding("tools", f"{len(names)}: {some}" if names else "none for this key")

    async def latency(self) -> Finding:
        """The usual time of a round trip."""
        method = "server/discover" if self._stateless else "ping"
        took = []
        for _ in range(_SAMPLES):
            began = time.perf_counter()
            await self._ask(method, self._params({}))
            took.append((time.perf_counter() - began) * 1000)
        return Finding("latency", f"{statistics.median(took):.1f} ms (median of {_SAMPLES})")

    async def leave(self) -> None:
        """Ends the session."""
        if self._session.get("mcp-session-id"):
            try:
                async with self._exchange.transport.send("DELETE", self._session, silence=2.0):
                    pass
            except BridgeError:
                return  # the server has gone, and its session with it

    def _params(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return {**params, "_meta": _META} if self._stateless else dict(params)

    async def _ask(
        self, method: str, params: Mapping[str, Any], *, handshake: bool = False
    ) -> Reply:
        message = request(f"doctor {method}", method, params)
        stateless = self._stateless and not handshake
        headers = mirrored(message, _STATELESS, {}) if stateless else self._session
        try:
            return await self._exchange.ask(Question(message, headers, _ignore, _HURRY))
        except Refused as refused:
            if refused.reply and refused.status not in (401, 403):
                return Reply(refused.reply)  # it does not speak this era
            raise


async def _ignore(_: Message) -> None:
    """What the server says unasked is no finding."""
