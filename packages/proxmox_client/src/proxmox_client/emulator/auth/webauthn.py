"""WebAuthn: challenges of a sign-in, signed assertions, and a security key that signs them."""

import base64
import binascii
import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from proxmox_client.emulator.state.user_config import SecondFactor
from proxmox_client.properties import flag

_USER_PRESENT = 1


def request_options(settings: Mapping[str, str], factors: Sequence[SecondFactor]) -> dict[str, Any]:
    """Return a new challenge for the security keys of a user."""
    allowed = [{"type": "public-key", "id": factor.credential} for factor in factors]
    return {
        "publicKey": {
            "challenge": _encoded(secrets.token_bytes(32)),
            "timeout": 60_000,
            "rpId": settings["id"],
            "allowCredentials": allowed,
            "userVerification": "discouraged",
        }
    }


def origin_of(settings: Mapping[str, str], host: str) -> str:
    """Return the origin that keys sign for: the configured one, or that of the request's Host.

    Source: configure_u2f_and_wa in PVE/AccessControl.pm.
    """
    return settings.get("origin") or f"https://{host}"


def is_usable(settings: Mapping[str, str], host: str) -> bool:
    """Return whether the origin is at or below the ID; without that, no challenge is made."""
    domain = settings.get("id", "")
    return bool(domain) and _is_within(_host(origin_of(settings, host)), domain)


def accepts(
    settings: Mapping[str, str],
    host: str,
    factors: Sequence[SecondFactor],
    assertion: Mapping[str, Any],
    challenge: str,
) -> bool:
    """Return whether one of the security keys signed the challenge, for the right origin."""
    try:
        factor = next(each for each in factors if each.credential == assertion["id"])
        response = assertion["response"]
        client_data = _decoded(response["clientDataJSON"])
        authenticator_data = _decoded(response["authenticatorData"])
        statement = json.loads(client_data)
        key = serialization.load_der_public_key(_decoded(factor.secret))
        assert isinstance(key, ec.EllipticCurvePublicKey)  # noqa: S101 - made by SecurityKey
        signed = authenticator_data + hashlib.sha256(client_data).digest()
        key.verify(_decoded(response["signature"]), signed, ec.ECDSA(hashes.SHA256()))
    except (StopIteration, KeyError, TypeError, ValueError, binascii.Error, InvalidSignature):
        return False
    relying_party = hashlib.sha256(settings["id"].encode()).digest()
    return (
        (statement.get("type"), statement.get("challenge")) == ("webauthn.get", challenge)
        and _is_origin(settings, host, str(statement.get("origin")))
        and authenticator_data[:32] == relying_party
        and bool(authenticator_data[32] & _USER_PRESENT)
    )


def _is_origin(settings: Mapping[str, str], host: str, origin: str) -> bool:
    """Return whether this is the origin, or that of a subdomain; scheme and port are the same.

    Source: webauthn-rs-proto, origins_match.
    """
    allowed = origin_of(settings, host)
    if _port(origin) != _port(allowed):
        return False
    if _host(origin) == _host(allowed):
        return True
    return flag(settings.get("allow-subdomains"), absent=True) and _is_within(
        _host(origin), _host(allowed)
    )


def _host(origin: str) -> str:
    return urlsplit(origin).hostname or ""


def _port(origin: str) -> tuple[str, int]:
    url = urlsplit(origin)
    return url.scheme, url.port or (443 if url.scheme == "https" else 80)


def _is_within(host: str, domain: str) -> bool:
    return host == domain or host.endswith(f".{domain}")


class SecurityKey:
    """A security key of a user: it holds a private key and signs challenges."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.credential = _encoded(secrets.token_bytes(16))

    def factor(self) -> SecondFactor:
        """Return the second factor to register with a user."""
        public = self._key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        name = secrets.token_hex(16)
        return SecondFactor(name, "webauthn", _encoded(public), credential=self.credential)

    def pkcs8(self) -> bytes:
        """Return the private key in DER, for the virtual authenticator of a browser."""
        return self._key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def sign(self, options: Mapping[str, Any], origin: str) -> str:
        """Return what a page of the origin sends to Proxmox after the key has signed, as JSON."""
        public_key = options["publicKey"]
        statement = {"type": "webauthn.get", "challenge": public_key["challenge"], "origin": origin}
        client_data = json.dumps(statement).encode()
        relying_party = hashlib.sha256(public_key["rpId"].encode()).digest()
        authenticator_data = relying_party + bytes([_USER_PRESENT, 0, 0, 0, 1])
        signed = authenticator_data + hashlib.sha256(client_data).digest()
        return json.dumps(
            {
                "id": self.credential,
                "type": "public-key",
                "challenge": public_key["challenge"],
                "rawId": self.credential,
                "response": {
                    "authenticatorData": _encoded(authenticator_data),
                    "clientDataJSON": _encoded(client_data),
                    "signature": _encoded(self._key.sign(signed, ec.ECDSA(hashes.SHA256()))),
                },
            }
        )


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
