"""Which certificates we trust, and how to learn a host's fingerprint."""

import asyncio
import hashlib
import os
import re
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from proxmox_client.errors import TlsError, Unreachable
from proxmox_client.hosts import Host

HANDSHAKE_TIMEOUT = 10.0
_FINGERPRINT = re.compile(r"[0-9A-F]{2}(:[0-9A-F]{2}){31}", re.ASCII)


@dataclass(frozen=True)
class Tls:
    """What makes a certificate trusted: the system's store unless something is named here.

    `fingerprints` (SHA-256 of the leaf, colon-hex) decide alone when given: neither issuer nor
    name nor dates matter then. `insecure` trusts anything.
    """

    ca_file: Path | str | None = None
    ca_pem: str | None = field(default=None, repr=False)
    fingerprints: Iterable[str] = frozenset()
    insecure: bool = False

    def __post_init__(self) -> None:
        pins = frozenset(map(normalized, self.fingerprints))
        object.__setattr__(self, "fingerprints", pins)

    def context(self) -> ssl.SSLContext:
        """The TLS context for this trust."""
        if self.fingerprints:
            return _pinning(frozenset(self.fingerprints))
        if self.insecure:
            return _trusting_anything()
        if self.ca_file is None and self.ca_pem is None:
            return _system()
        context = ssl.create_default_context(
            cafile=str(self.ca_file) if self.ca_file else None, cadata=self.ca_pem
        )
        # Proxmox's own CAs made before 2026-03 lack keyUsage, which Python 3.13's default refuses
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context


def normalized(fingerprint: str) -> str:
    """A SHA-256 fingerprint as colon-hex in capitals, or ValueError."""
    digits = fingerprint.strip().upper().removeprefix("SHA256:").replace(":", "")
    text = ":".join(digits[i : i + 2] for i in range(0, len(digits), 2))
    if not _FINGERPRINT.fullmatch(text):
        raise ValueError(f"{fingerprint!r} is not a SHA-256 fingerprint (32 bytes in hex)")
    return text


def fingerprint_of(certificate: bytes) -> str:
    """The fingerprint of a certificate in DER."""
    return hashlib.sha256(certificate).digest().hex(":").upper()


async def fetch_fingerprint(host: str) -> str:
    """The fingerprint of the certificate that `host` shows; nothing but the handshake is sent."""
    address = Host.parse(host)
    try:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT):
            _, writer = await asyncio.open_connection(
                address.name, address.port, ssl=_trusting_anything(), server_hostname=address.name
            )
    except ssl.SSLError as error:
        raise TlsError(host, f"the TLS handshake failed ({error.reason or error})") from error
    except TimeoutError as error:
        raise Unreachable(host, f"no answer within {HANDSHAKE_TIMEOUT:g} s") from error
    except OSError as error:
        raise Unreachable(host, _fact_of(error)) from error
    try:
        return fingerprint_of(_leaf(writer.get_extra_info("ssl_object")))
    finally:
        writer.transport.abort()


def _fact_of(error: OSError) -> str:
    """The system's own words; asyncio adds its numbers to them, name servers count below zero."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error)


@cache
def _system() -> ssl.SSLContext:
    # loading the system's store costs 90 ms, so all clusters share it
    return ssl.create_default_context()


def _trusting_anything() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _pinning(pins: frozenset[str]) -> ssl.SSLContext:
    """A context whose handshakes fail unless the leaf is pinned, before a byte is sent."""

    class PinnedObject(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            seen = fingerprint_of(_leaf(self))
            if seen not in pins:
                raise ssl.SSLCertVerificationError(f"the certificate's fingerprint is {seen}")

    context = _trusting_anything()
    context.sslobject_class = PinnedObject
    return context


def _leaf(connection: Any) -> bytes:
    certificate = connection.getpeercert(binary_form=True)
    return certificate or b""
