"""Second factors of one user: the challenge after the password, and the check of its answer."""

import hmac
import json
from typing import Any, Final

from proxmox_client import properties
from proxmox_client.emulator.auth import totp, webauthn
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.user_config import SecondFactor, User

TOTP_LIMIT: Final = 8
"""Wrong codes in a row that lock TOTP, until a recovery key is used."""
FAILURE_LIMIT: Final = 100
LOCK_SECONDS: Final = 3600
CHALLENGE_SECONDS: Final = 120
USED: Final = "-"
"""In the place of a recovery key that was used."""
_YUBICO_ID: Final = 12


class SecondFactors:
    """The second factors of a user, at the node that handles the sign-in.

    `host` is the Host header of the request: security keys may sign for it.
    """

    def __init__(self, state: ClusterState, user: User, node: str, host: str) -> None:
        self._state, self._user, self._node, self._host = state, user, node, host

    def challenge(self) -> dict[str, Any] | None:
        """Return what the user can answer with; None if no second factor is registered.

        It is empty for security keys that cannot be used at this host.
        """
        realm = self._state.user_config.realms[self._user.realm]
        offered: dict[str, Any] = {}
        for factor in self._of("recovery"):
            keys = enumerate(factor.secret.split())
            offered["recovery"] = [number for number, key in keys if key != USED]
        if realm.tfa == "yubico":
            return offered | {"yubico": True}
        if self._of("totp"):
            offered["totp"] = True
        if self._of("yubico"):
            offered["yubico"] = True
        security_keys, settings = self._of("webauthn"), self._webauthn()
        if security_keys and webauthn.is_usable(settings, self._host):
            options = webauthn.request_options(settings, security_keys)
            expires = self._state.now + CHALLENGE_SECONDS
            pending = self._user.webauthn_challenges
            pending[options["publicKey"]["challenge"]] = (self._node, expires)
            offered["webauthn"] = options
        return offered if offered or security_keys else None

    def accept(self, answer: str) -> bool:
        """Return whether an answer like totp:123456 is right; count those that are wrong."""
        user, now = self._user, self._state.now
        kind, _, value = answer.partition(":")
        if now < user.tfa_locked_until or (kind == "totp" and user.totp_locked):
            return False
        if self._is_right(kind, value):
            user.tfa_failures = 0
            if kind == "recovery":
                user.totp_locked = False
            if kind in ("totp", "recovery"):
                user.totp_failures = 0
            return True
        user.tfa_failures += 1
        user.totp_failures += kind == "totp"
        user.totp_locked |= user.totp_failures >= TOTP_LIMIT
        if user.tfa_failures >= FAILURE_LIMIT:
            user.tfa_locked_until = now + LOCK_SECONDS
        return False

    def _is_right(self, kind: str, value: str) -> bool:
        match kind:
            case "totp":
                return any(self._accepts_code(factor, value) for factor in self._of(kind))
            case "recovery":
                return any(_use_key(factor, value) for factor in self._of(kind))
            case "webauthn":
                return self._accepts_assertion(value)
            case "yubico":
                return any(factor.secret == value[:_YUBICO_ID] for factor in self._of(kind))
        return False

    def _accepts_code(self, factor: SecondFactor, digits: str) -> bool:
        period = totp.period_of(factor.secret, digits, self._state.now)
        if period <= factor.last_used:
            return False
        factor.last_used = period
        return True

    def _accepts_assertion(self, text: str) -> bool:
        """Check a signed challenge; each is kept by one node, and valid once."""
        try:
            assertion = json.loads(text)
            challenge = str(assertion["challenge"])
        except (ValueError, TypeError, KeyError):
            return False
        node, expires = self._user.webauthn_challenges.get(challenge, ("", 0.0))
        if node != self._node:
            return False
        del self._user.webauthn_challenges[challenge]
        settings, keys = self._webauthn(), self._of("webauthn")
        is_current = self._state.now < expires
        is_usable = webauthn.is_usable(settings, self._host)
        return (
            is_current
            and is_usable
            and webauthn.accepts(settings, self._host, keys, assertion, challenge)
        )

    def _of(self, kind: str) -> list[SecondFactor]:
        return [factor for factor in self._user.factors if factor.kind == kind and factor.enabled]

    def _webauthn(self) -> properties.Properties:
        """Return the cluster's option `webauthn`; empty if it is not configured."""
        return properties.parse(self._state.options.get("webauthn"))


def _use_key(factor: SecondFactor, value: str) -> bool:
    keys = factor.secret.split()
    for number, key in enumerate(keys):
        if key != USED and hmac.compare_digest(key.encode(), value.encode()):
            keys[number] = USED
            factor.secret = " ".join(keys)
            return True
    return False
