"""Public keys that an issuer publishes as a JWKS: those of users' tokens, and of administrators'.

An issuer chooses how many there are and how large, so both are bounded: importing a key takes a
tenth of a millisecond or more of the event loop, and a signature of a huge one far longer.
joserfc comes with the extra `oidc`, and is imported with the first key.
"""

from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic_core import from_json

CURVES: Final = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
ED25519: Final = ("Ed25519", "EdDSA")  # the name of RFC 9864, and the one before
MOST_KEYS: Final = 100
RSA_BITS: Final = range(2048, 8193)  # a larger key takes long
EXPONENT_BITS: Final = 64  # a larger one too; nearly every key has 65537
LONGEST_NUMBER: Final = 1_400  # characters; the modulus of RSA has 1,366


@dataclass(frozen=True, slots=True)
class PublishedKey:
    """A public key of the issuer, and what it may be used for."""

    kid: str | None
    algorithms: frozenset[str]
    key: Any = field(repr=False)


def published_keys(document: Mapping[str, Any]) -> Sequence[PublishedKey] | None:
    """Return the usable keys of a JWKS; None when it has no list of keys, or a too long one."""
    keys = document.get("keys")
    if not isinstance(keys, list) or len(keys) > MOST_KEYS:
        return None
    return [key for each in keys if (key := _imported(each)) is not None]


def find_key(keys: Sequence[PublishedKey], kid: str | None, algorithm: str) -> PublishedKey | None:
    """Return the key of a token; a token without a kid may mean one key only."""
    fitting = [each for each in keys if algorithm in each.algorithms]
    if kid is not None:
        return next((each for each in fitting if each.kid == kid), None)
    return fitting[0] if len(fitting) == 1 else None


def json_object(text: bytes) -> dict[str, Any] | None:
    """Return a JSON object without NaN, not nested deeply; None for anything else."""
    try:
        value = from_json(text, allow_inf_nan=False)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def unpadded(text: str) -> bytes:
    """Decode base64url without padding; raise ValueError."""
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _imported(values: Any) -> PublishedKey | None:
    """Return a key of a JWKS; None for one that is of no use here, as for encryption."""
    from joserfc import jwk
    from joserfc.errors import JoseError

    if not isinstance(values, dict) or values.get("use", "sig") != "sig" or "d" in values:
        return None
    operations, kid = values.get("key_ops", ["verify"]), values.get("kid")
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    algorithms = {
        "RSA": frozenset(RSA),
        "EC": frozenset(name for name, curve in CURVES.items() if curve == values.get("crv")),
        "OKP": frozenset(ED25519 if values.get("crv") == "Ed25519" else ()),
    }.get(str(values.get("kty")), frozenset())
    if "alg" in values:
        algorithms &= {str(values["alg"])}
    if not algorithms or not isinstance(kid, str | None):
        return None
    numbers = [each for each in map(values.get, ("n", "e", "x", "y")) if each is not None]
    if not all(isinstance(each, str) and len(each) <= LONGEST_NUMBER for each in numbers):
        return None
    try:
        if values["kty"] == "RSA" and not _is_quick(values["n"], values["e"]):
            return None
        return PublishedKey(kid, algorithms, jwk.import_key(values))
    except (JoseError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _is_quick(modulus: str, exponent: str) -> bool:
    return _bits(modulus) in RSA_BITS and _bits(exponent) <= EXPONENT_BITS


def _bits(number: str) -> int:
    return int.from_bytes(unpadded(number)).bit_length()
