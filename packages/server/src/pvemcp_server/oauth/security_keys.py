"""Security keys of Proxmox users (WebAuthn) on a page of this server.

A browser lets a key sign on pages at or below Proxmox's relying party ID only. Proxmox compares the
signed origin with that of its option `webauthn`, or, where that names none, with the Host of the
answer: so the answer names the host of the page.
"""

import json
from typing import Any, Final
from urllib.parse import urlsplit

from proxmox_client import SecondFactor
from pvemcp_server.errors import BadArgument

LONGEST_ANSWER: Final = 16 * 1024  # characters; an answer has less than a thousand
ASKED: Final = ("challenge", "timeout", "rpId", "userVerification")
SIGNED: Final = ("authenticatorData", "clientDataJSON", "signature")


def relying_party_of(factor: SecondFactor) -> str:
    """Return the domain that the user's keys are for; empty if Proxmox asks for none."""
    return str(_public_key(factor).get("rpId") or "")


def works_on(factor: SecondFactor, host: str) -> bool:
    """Return whether a browser lets the user's keys sign on pages of a host."""
    domain = relying_party_of(factor)
    return bool(domain) and (host == domain or host.endswith(f".{domain}"))


def request_options(factor: SecondFactor) -> str:
    """Return the options of `navigator.credentials.get` as JSON, without what browsers refuse."""
    public_key = _public_key(factor)
    allowed = public_key.get("allowCredentials")
    keys = [
        {name: key[name] for name in ("type", "id", "transports") if key.get(name)}
        for key in (allowed if isinstance(allowed, list) else [])
        if isinstance(key, dict)
    ]
    options = {name: public_key[name] for name in ASKED if public_key.get(name) is not None}
    return json.dumps({**options, "allowCredentials": keys})


def signed_answer(factor: SecondFactor, credential: str) -> str:
    """Return a browser's credential in the form that Proxmox's own page sends.

    Raise BadArgument for one that is malformed.
    """
    try:
        made = json.loads(credential[:LONGEST_ANSWER])
        answer = {name: str(made[name]) for name in ("id", "type", "rawId")}
        response = {name: str(made["response"][name]) for name in SIGNED}
    except (ValueError, TypeError, KeyError, RecursionError):
        raise BadArgument("credential", "is not the answer of a security key.") from None
    challenge = str(_public_key(factor).get("challenge"))
    return json.dumps({**answer, "challenge": challenge, "response": response})


def host_of(origin: str) -> str | None:
    """Return the host that an answer to Proxmox names for a page; None for one without https."""
    url = urlsplit(origin)
    return url.netloc if url.scheme == "https" else None


def _public_key(factor: SecondFactor) -> dict[str, Any]:
    public_key = (factor.webauthn or {}).get("publicKey")
    return public_key if isinstance(public_key, dict) else {}
