"""Trust in server certificates, and the fingerprint of a host's certificate."""

import asyncio
import hashlib
import os
import re
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from proxmox_client.errors import PlainPort, TlsError, Unreachable
from proxmox_client.hosts import Host
from proxmox_client.responses import LimitedObject, limit_heads

HANDSHAKE_TIMEOUT = 10.0
PLAIN = "the port does not speak TLS"
_PLAIN = frozenset(  # what OpenSSL makes of an answer without TLS, by version
    {"HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "WRONG_VERSION_NUMBER"}
)
_FINGERPRINT = re.compile(r"[0-9A-F]{2}(:[0-9A-F]{2}){31}", re.ASCII)


@dataclass(frozen=True)
class Tls:
    """Trusted certificates: those of the system's store, unless a field here is set.

    With `fingerprints` (SHA-256 of the leaf, colon-hex) only a pinned certificate is trusted,
    whatever its issuer, name and dates. `insecure` trusts every certificate.
    """

    ca_file: Path | str | None = None
    ca_pem: str | None = field(default=None, repr=False)
    fingerprints: Iterable[str] = frozenset()
    insecure: bool = False

    def __post_init__(self) -> None:
        pins = frozenset(map(normalize_fingerprint, self.fingerprints))
        object.__setattr__(self, "fingerprints", pins)

    def context(self) -> ssl.SSLContext:
        """Return the TLS context for these settings; raise ValueError for an unreadable CA."""
        if self.fingerprints:
            return _pinned_context(frozenset(self.fingerprints))
        if self.insecure:
            return _unverified_context()
        if self.ca_file is None and self.ca_pem is None:
            return _default_context()
        try:
            context = ssl.create_default_context(
                cafile=str(self.ca_file) if self.ca_file else None, cadata=self.ca_pem
            )
        except (ssl.SSLError, TypeError):  # the latter for a text beyond ASCII
            raise ValueError("no certificate can be read from the given authority") from None
        limit_heads(context)
        # Proxmox's own CAs made before 2026-03 lack keyUsage; Python 3.13 rejects them by default
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context


def normalize_fingerprint(fingerprint: str) -> str:
    """Return a SHA-256 fingerprint as colon-hex in capitals, or raise ValueError.

    It may have a label, as openssl ("sha256 Fingerprint=AA:…") and ssh ("SHA256:…") print it.
    """
    digits = fingerprint.rpartition("=")[2].strip().upper().removeprefix("SHA256:").replace(":", "")
    text = ":".join(digits[i : i + 2] for i in range(0, len(digits), 2))
    if not _FINGERPRINT.fullmatch(text):
        raise ValueError(f"{fingerprint!r} is not a SHA-256 fingerprint (32 bytes in hex)")
    return text


def fingerprint_of(certificate: bytes) -> str:
    """Return the fingerprint of a certificate in DER."""
    return hashlib.sha256(certificate).digest().hex(":").upper()


async def fetch_fingerprint(host: str) -> str:
    """Fetch the fingerprint of a host's certificate; send nothing but the TLS handshake.

    Raise TlsError when the handshake fails, Unreachable when there is no connection.
    """
    async with _handshake(host, _unverified_context()) as leaf:
        return fingerprint_of(leaf)


async def is_trusted(host: str) -> bool:
    """Return whether an authority of this system signed the host's certificate, for its name.

    Raise Unreachable when there is no connection.
    """
    try:
        async with _handshake(host, _default_context()):
            return True
    except TlsError:
        return False


def tls_fault(error: BaseException | None) -> ssl.SSLError | None:
    """Return the TLS error that this one was raised from; a connection that merely ended is none.

    It is the first TLS error of the chain of causes.
    """
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    ended = ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError
    return None if isinstance(error, ended) else error


def tls_reason(fault: ssl.SSLError) -> str:
    """Return in words why a handshake failed, without the codes of OpenSSL."""
    if isinstance(fault, ssl.SSLCertVerificationError):
        known = getattr(fault, "verify_message", "")  # of OpenSSL; a pin has its own sentence
        text = f"the certificate is not trusted: {known}" if known else str(fault.args[-1])
        return text.removesuffix(".")
    reason = getattr(fault, "reason", None)  # only OpenSSL sets it
    if reason in _PLAIN:
        return PLAIN
    return f"the TLS handshake failed: {(reason or 'unknown').replace('_', ' ').lower()}"


def tls_error(host: str, fault: ssl.SSLError) -> TlsError:
    """Return the error of a host whose handshake failed."""
    reason = tls_reason(fault)
    return PlainPort(host, reason) if reason == PLAIN else TlsError(host, reason)


@asynccontextmanager
async def _handshake(host: str, context: ssl.SSLContext) -> AsyncIterator[bytes]:
    """Connect, and yield the host's certificate in DER."""
    address = Host.parse(host)
    try:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT):
            _, writer = await asyncio.open_connection(
                address.name, address.port, ssl=context, server_hostname=address.name
            )
    except ssl.SSLError as error:
        raise tls_error(host, error) from error
    except TimeoutError as error:
        raise Unreachable(host, f"no answer within {HANDSHAKE_TIMEOUT:g} s") from error
    except OSError as error:
        raise Unreachable(host, _os_error_text(error)) from error
    try:
        yield _leaf(writer.get_extra_info("ssl_object"))
    finally:
        writer.transport.abort()


def _os_error_text(error: OSError) -> str:
    """Return the system's message without the numbers that asyncio adds.

    Errors of name resolution have negative numbers, which os.strerror doesn't know.
    """
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error)


@cache
def _default_context() -> ssl.SSLContext:
    # all clusters share one context: loading the system's store takes 90 ms
    return limit_heads(ssl.create_default_context())


def _unverified_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return limit_heads(context)


def _pinned_context(pins: frozenset[str]) -> ssl.SSLContext:
    """Create a context whose handshakes fail, before a byte is sent, unless the leaf is pinned."""

    class PinnedObject(LimitedObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            fingerprint = fingerprint_of(_leaf(self))
            if fingerprint not in pins:
                message = f"the certificate's fingerprint is {fingerprint}, which is not pinned"
                raise ssl.SSLCertVerificationError(message)

    context = _unverified_context()
    context.sslobject_class = PinnedObject
    return context


def _leaf(connection: Any) -> bytes:
    certificate = connection.getpeercert(binary_form=True)
    return certificate or b""
