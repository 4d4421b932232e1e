"""Signing in with a password, a ticket to renew, or a second factor."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from proxmox_client.emulator.auth import totp
from proxmox_client.emulator.auth.tickets import TicketOffice
from proxmox_client.emulator.errors import SignInRefused
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.people import User

REFUSED: Final = "authentication failure"


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who signed in, and which second factors are still owed."""

    userid: str
    owes: list[str]


def check(state: ClusterState, office: TicketOffice, params: Mapping[str, Any]) -> SignedIn:
    """Who these credentials belong to, or SignInRefused."""
    name = str(params["username"])
    realm = params.get("realm")
    userid = name if "@" in name or not realm else f"{name}@{realm}"
    user = state.people.users.get(userid)
    password = str(params["password"])
    if user is None or not user.enabled or 0 < user.expire <= state.now:
        raise SignInRefused(REFUSED, with_body=True)
    if challenge := params.get("tfa-challenge"):
        _answer_challenge(state, office, user, str(challenge), password)
        return SignedIn(userid, [])
    if password.startswith("PVE:"):
        ticket = office.read(password, state.now)
        if ticket is not None and ticket.subject == userid and not ticket.half:
            return SignedIn(userid, [])
        raise SignInRefused(REFUSED, with_body=True)
    if not user.password or not hmac.compare_digest(user.password.encode(), password.encode()):
        raise SignInRefused(REFUSED, with_body=True)
    return SignedIn(userid, _owed(state, user, str(params.get("otp", ""))))


def _owed(state: ClusterState, user: User, otp: str) -> list[str]:
    kinds = sorted({factor.kind for factor in user.factors})
    if not kinds or not otp:
        return kinds
    _require_factor(state, user, otp)
    return []


def _answer_challenge(
    state: ClusterState, office: TicketOffice, user: User, challenge: str, answer: str
) -> None:
    ticket = office.read(challenge, state.now, userid=user.userid)
    if ticket is None or not ticket.half:
        raise SignInRefused(REFUSED, with_body=True)
    _require_factor(state, user, answer)


def _require_factor(state: ClusterState, user: User, answer: str) -> None:
    """An answer names its kind: totp:123456 or recovery:…; a recovery key is good once."""
    kind, _, given = answer.partition(":")
    for factor in user.factors:
        if kind == "totp" == factor.kind and totp.accepts(factor.secret, given, state.now):
            return
        if kind == "recovery" == factor.kind and hmac.compare_digest(factor.secret, given):
            user.factors.remove(factor)
            return
    raise SignInRefused(REFUSED, with_body=True)
