"""Sign-in with a password, a ticket to renew, or a second factor."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from proxmox_client.emulator.auth.second_factors import SecondFactors
from proxmox_client.emulator.auth.tickets import TicketIssuer
from proxmox_client.emulator.errors import Unauthorized
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.user_config import User

REFUSED: Final = "authentication failure"


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A user whose password or ticket was correct, and the challenge that still has to be met."""

    userid: str
    challenge: Mapping[str, Any] | None = None


def check(
    state: ClusterState, tickets: TicketIssuer, params: Mapping[str, Any], node: str, host: str
) -> SignedIn:
    """Check the parameters of POST /access/ticket at a node; raise Unauthorized.

    `host` is the Host header.
    """
    name = str(params["username"])
    given_realm = params.get("realm")
    userid = name if "@" in name or not given_realm else f"{name}@{given_realm}"
    user = active_user(state, userid)
    password = str(params["password"])
    if "tfa-challenge" in params:
        challenge = str(params["tfa-challenge"])
        ticket = tickets.read(challenge, state.now, userid=user.userid)
        is_half = ticket is not None and ticket.half
        factors = SecondFactors(state, user, node, host)
        return _accepted(user, ok=is_half and factors.accept(password))
    if password.startswith("PVE:"):
        ticket = tickets.read(password, state.now)
        is_own = ticket is not None and ticket.subject == userid and not ticket.half
        return _accepted(user, ok=is_own)
    realm = state.user_config.realms.get(user.realm)
    is_right = hmac.compare_digest(user.password.encode(), password.encode())
    if realm is None or realm.type == "openid" or not user.password or not is_right:
        raise refusal()
    factors = SecondFactors(state, user, node, host)
    offered = factors.challenge()
    if realm.tfa and offered is None:
        raise refusal()
    if offered is not None and (answer := params.get("otp")):
        return _accepted(user, ok=factors.accept(str(answer)))
    return SignedIn(userid, offered)


def active_user(state: ClusterState, userid: str) -> User:
    """Return a user who may sign in; raise Unauthorized."""
    user = state.user_config.users.get(userid)
    if user is None or not user.enabled or 0 < user.expire <= state.now:
        raise refusal()
    return user


def refusal() -> Unauthorized:
    """Return the error of every sign-in that fails: Proxmox gives no reason."""
    return Unauthorized(REFUSED, with_body=True)


def _accepted(user: User, *, ok: bool) -> SignedIn:
    if not ok:
        raise refusal()
    return SignedIn(user.userid)
