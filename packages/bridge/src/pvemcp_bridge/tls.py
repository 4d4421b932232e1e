"""How the server proves who it is: the system's authorities, one's own, a pinned certificate."""

import hashlib
import hmac
import re
import ssl
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Trust", "colons", "context", "is_authority", "normal_fingerprint", "unverified"]


@dataclass(frozen=True)
class Trust:
    """What makes a server's certificate acceptable."""

    ca_file: Path | None = None
    fingerprint: str = ""
    insecure: bool = False


def normal_fingerprint(text: str) -> str:
    """A SHA-256 fingerprint as 64 lower-case hexadecimal digits, however it was written."""
    digits = re.sub(r"^sha-?256[:=]", "", text.strip().lower()).replace(":", "")
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise ValueError("A fingerprint is the certificate's SHA-256: 64 hexadecimal digits.")
    return digits


def colons(digest: str) -> str:
    """A fingerprint as people and tools show it."""
    return ":".join(digest[i : i + 2] for i in range(0, len(digest), 2)).upper()


def is_authority(file: Path) -> bool:
    """Whether a file holds certificates to trust."""
    try:
        ssl.create_default_context(cafile=file)
    except ssl.SSLError:
        return False
    return True


def context(trust: Trust) -> ssl.SSLContext | None:
    """The TLS settings that hold a server to this trust; None for those of the system."""
    if trust.fingerprint:
        return _pinned(trust.fingerprint)
    if trust.insecure:
        return unverified()
    if trust.ca_file:
        return ssl.create_default_context(cafile=trust.ca_file)
    return None


def unverified() -> ssl.SSLContext:
    """TLS settings that accept every certificate."""
    settings = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    settings.check_hostname = False
    settings.verify_mode = ssl.CERT_NONE
    return settings


def _pinned(fingerprint: str) -> ssl.SSLContext:
    class PinnedConnection(ssl.SSLObject):
        """Ends in the handshake, before anything is sent, on any other certificate."""

        def do_handshake(self) -> None:
            super().do_handshake()
            seen = hashlib.sha256(self.getpeercert(binary_form=True) or b"").hexdigest()
            if not hmac.compare_digest(seen, fingerprint):
                raise ssl.SSLCertVerificationError(
                    f"the certificate's fingerprint is {colons(seen)}, not the pinned one"
                )

    settings = unverified()
    settings.sslobject_class = PinnedConnection
    return settings
