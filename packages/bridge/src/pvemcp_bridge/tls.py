"""TLS verification: the system's authorities, a CA file or a pinned certificate."""

import hashlib
import hmac
import re
import ssl
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "Trust",
    "context",
    "format_fingerprint",
    "is_ca_file",
    "normalize_fingerprint",
    "unverified",
]


@dataclass(frozen=True)
class Trust:
    """How to verify the server's certificate."""

    ca_file: Path | None = None
    fingerprint: str = ""
    insecure: bool = False


def normalize_fingerprint(text: str) -> str:
    """Return a SHA-256 fingerprint in any notation as 64 lower-case hexadecimal digits.

    Raise ValueError when it is none.
    """
    digits = re.sub(r"^sha-?256[:=]", "", text.strip().lower()).replace(":", "")
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise ValueError(
            "The fingerprint must be the certificate's SHA-256: 64 hexadecimal digits."
        )
    return digits


def format_fingerprint(digest: str) -> str:
    """Return a digest as tools show fingerprints: upper case, with colons."""
    return ":".join(digest[i : i + 2] for i in range(0, len(digest), 2)).upper()


def is_ca_file(file: Path) -> bool:
    """Return whether a file holds CA certificates in PEM."""
    try:
        ssl.create_default_context(cafile=file)
    except ssl.SSLError:
        return False
    return True


def context(trust: Trust) -> ssl.SSLContext | None:
    """Return the TLS context for this trust; None for the default of the system."""
    if trust.fingerprint:
        return _pinned(trust.fingerprint)
    if trust.insecure:
        return unverified()
    if trust.ca_file:
        return ssl.create_default_context(cafile=trust.ca_file)
    return None


def unverified() -> ssl.SSLContext:
    """Create a TLS context that accepts any certificate."""
    tls_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls_context.check_hostname = False
    tls_context.verify_mode = ssl.CERT_NONE
    return tls_context


def _pinned(fingerprint: str) -> ssl.SSLContext:
    class PinnedConnection(ssl.SSLObject):
        """TLS connection that rejects other certificates in the handshake, before data is sent."""

        def do_handshake(self) -> None:
            super().do_handshake()
            digest = hashlib.sha256(self.getpeercert(binary_form=True) or b"").hexdigest()
            if not hmac.compare_digest(digest, fingerprint):
                raise ssl.SSLCertVerificationError(
                    "the certificate's fingerprint is "
                    f"{format_fingerprint(digest)}, not the pinned one"
                )

    tls_context = unverified()
    tls_context.sslobject_class = PinnedConnection
    return tls_context
