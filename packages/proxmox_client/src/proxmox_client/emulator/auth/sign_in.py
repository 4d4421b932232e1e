"""Sign-in with a password, a ticket to renew, or a second factor."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from proxmox_client.emulator.auth import totp
from proxmox_client.emulator.auth.tickets import TicketIssuer
from proxmox_client.emulator.errors import Unauthorized
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.user_config import User

REFUSED: Final = "authentication failure"


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A user whose password or ticket was correct, and the second factors still required."""

    userid: str
    required_factors: list[str]


def check(state: ClusterState, tickets: TicketIssuer, params: Mapping[str, Any]) -> SignedIn:
    """Check the parameters of POST /access/ticket; raise Unauthorized."""
    name = str(params["username"])
    realm = params.get("realm")
    userid = name if "@" in name or not realm else f"{name}@{realm}"
    user = state.user_config.users.get(userid)
    password = str(params["password"])
    if user is None or not user.enabled or 0 < user.expire <= state.now:
        raise Unauthorized(REFUSED, with_body=True)
    if challenge := params.get("tfa-challenge"):
        _check_challenge(state, tickets, user, str(challenge), password)
        return SignedIn(userid, [])
    if password.startswith("PVE:"):
        ticket = tickets.read(password, state.now)
        if ticket is not None and ticket.subject == userid and not ticket.half:
            return SignedIn(userid, [])
        raise Unauthorized(REFUSED, with_body=True)
    if not user.password or not hmac.compare_digest(user.password.encode(), password.encode()):
        raise Unauthorized(REFUSED, with_body=True)
    return SignedIn(userid, _required_factors(state, user, str(params.get("otp", ""))))


def _required_factors(state: ClusterState, user: User, otp: str) -> list[str]:
    kinds = sorted({factor.kind for factor in user.factors})
    if not kinds or not otp:
        return kinds
    _require_factor(state, user, otp)
    return []


def _check_challenge(
    state: ClusterState, tickets: TicketIssuer, user: User, challenge: str, answer: str
) -> None:
    ticket = tickets.read(challenge, state.now, userid=user.userid)
    if ticket is None or not ticket.half:
        raise Unauthorized(REFUSED, with_body=True)
    _require_factor(state, user, answer)


def _require_factor(state: ClusterState, user: User, answer: str) -> None:
    """Check an answer like totp:123456 or recovery:…; a recovery key is valid once."""
    kind, _, code = answer.partition(":")
    for factor in user.factors:
        if kind == "totp" == factor.kind and totp.accepts(factor.secret, code, state.now):
            return
        if kind == "recovery" == factor.kind and hmac.compare_digest(factor.secret, code):
            user.factors.remove(factor)
            return
    raise Unauthorized(REFUSED, with_body=True)
