"""Sign-in of administrators, and confirming who one is during a session.

Every sign-in, also one that ends before its second step, every confirmation, every sign-out and
every refusal is recorded in the audit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from pvemcp_server.access.passkeys import Assertion
from pvemcp_server.access.sealed_state import SealedState
from pvemcp_server.access.second_factors import Code, Proof
from pvemcp_server.access.sessions import Session
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.audit import Event, Outcome
from pvemcp_server.errors import (
    AccessDenied,
    BadArgument,
    LocalSignInOff,
    SecondFactorNeeded,
    TooManyFailures,
)
from pvemcp_server.networks import network_of
from pvemcp_server.services import Services
from pvemcp_server.store.records import AdminRecord, ServiceTokenRecord

CONFIRM: Final = "confirm"
SECOND_STEP: Final = "second step of a sign-in"
SECOND_STEP_LIFE: Final = timedelta(minutes=5)
_UNRECORDED: Final = (TooManyFailures, SecondFactorNeeded, LocalSignInOff)


@dataclass(frozen=True, slots=True)
class PendingSignIn:
    """A sign-in whose first step was right; the challenge of a passkey is the state's nonce."""

    admin: AdminRecord
    state: SealedState


async def sign_in(
    services: Services, name: str, password: str, address: str, device: str = "", code: str = ""
) -> AdminRecord:
    """Return the administrator with this name and password; raise AccessDenied otherwise.

    `device` is the token of a browser that signed in before. Raise SecondFactorNeeded when the
    administrator has second factors and `code` is empty.
    """
    admins, second = services.access.admins, None
    try:
        admin = await admins.sign_in(name, password, address=address, device=device)
    except SecondFactorNeeded as needed:
        if not code:
            await _record_first_step(services, needed, address, "password")
            raise
        pending = await admins.pending(needed.admin_id, needed.generation)
        second = await check_second_factor(services, pending, Code(code), address, device)
        admin = await admins.finish_sign_in(pending)
    except AccessDenied as denied:
        if not isinstance(denied, _UNRECORDED):
            record = await services.store.admins.find(name=name)
            # an unknown name is not recorded: it may be a password typed into the wrong field
            await _record_refusal(services, denied.reason, address, record.name if record else None)
        raise
    await _record_sign_in(services, admin, address, "password", second)
    return admin


async def sign_in_external(
    services: Services, email: str, subject: str, claims: Mapping[str, Any], address: str
) -> AdminRecord:
    """Return the administrator that the OpenID Connect issuer identified.

    Raise AccessDenied unless PVEMCP_OIDC_ADMINS lists the e-mail address or one of the claims, and
    SecondFactorNeeded when the administrator has second factors here.
    """
    try:
        await _require_listed(services, email, subject, claims, address)
        await _follow_issuer(services, email, subject, claims, address)
        admin = await services.access.admins.sign_in_external(subject, email, claims)
    except SecondFactorNeeded as needed:
        await _record_first_step(services, needed, address, "oidc")
        raise
    except (AccessDenied, BadArgument) as refused:
        await _record_refusal(services, str(refused), address, email)
        raise
    await _record_sign_in(services, admin, address, "oidc")
    return admin


async def _follow_issuer(
    services: Services, email: str, subject: str, claims: Mapping[str, Any], address: str
) -> None:
    """Create or change the account as the issuer describes its user, and record that."""
    before = await services.store.admins.find(subject=subject)
    after = await services.access.admins.follow_issuer(subject, email, claims)
    context = AdminContext(services, after.name, address)
    if before is None:
        await context.changed("admins.add", name=after.name, listed_as=after.listed_as)
    elif (before.name, before.listed_as) != (after.name, after.listed_as):
        await context.changed(
            "admins.follow_issuer",
            name=before.name,
            new_name=after.name,
            listed_as=after.listed_as,
        )


async def sign_in_passkey(
    services: Services, state: SealedState, assertion: Assertion, address: str, device: str
) -> AdminRecord:
    """Return the administrator whose passkey answers the challenge of the state, once."""
    admins = services.access.admins
    try:
        admin = await admins.sign_in_passkey(assertion, address=address, device=device)
        await services.access.sealed_states.spend(state)
    except AccessDenied as denied:
        if not isinstance(denied, _UNRECORDED):
            factor = await services.access.second_factors.find_passkey(assertion)
            owner = await services.store.admins.find(id=factor.admin_id) if factor else None
            await _record_refusal(services, denied.reason, address, owner.name if owner else None)
        raise
    await _record_sign_in(services, admin, address, "passkey")
    return admin


async def sign_out(services: Services, session: Session, address: str) -> None:
    """End the session."""
    await services.access.sessions.end(session.id)
    await AdminContext(services, session.admin.name, address).changed("sign_out")


def begin_second_step(
    services: Services, needed: SecondFactorNeeded, by: str, confirms: str = ""
) -> str:
    """Return the sealed state of a sign-in whose first step was right, for this browser only.

    `confirms` is the id of the session that it verifies, in place of opening one.
    """
    return services.access.sealed_states.seal(
        SECOND_STEP,
        SECOND_STEP_LIFE,
        admin=needed.admin_id,
        generation=needed.generation,
        by=by,
        confirms=confirms,
    )


async def pending_sign_in(services: Services, sealed: str) -> PendingSignIn:
    """Return the sign-in of a sealed state; raise AccessDenied when it is not valid any more."""
    state = await services.access.sealed_states.open(SECOND_STEP, sealed)
    values = state.values
    admin = await services.access.admins.pending(values["admin"], values["generation"])
    return PendingSignIn(admin, state)


async def finish_second_step(
    services: Services, pending: PendingSignIn, proof: Proof, address: str, device: str
) -> AdminRecord | None:
    """Return the administrator after the second step; None when it has confirmed a session.

    Raise AccessDenied for a wrong factor.
    """
    values = pending.state.values
    action = CONFIRM if values["confirms"] else "sign_in"
    second = await check_second_factor(
        services, pending.admin, proof, address, device, action=action
    )
    await services.access.sealed_states.spend(pending.state)
    if session_id := values["confirms"]:
        await _confirmed(services, session_id, pending.admin.name, address, values["by"], second)
        return None
    admin = await services.access.admins.finish_sign_in(pending.admin)
    await _record_sign_in(services, admin, address, values["by"], second)
    return admin


async def check_second_factor(
    services: Services,
    admin: AdminRecord,
    proof: Proof,
    address: str,
    device: str = "",
    *,
    alone: bool = False,
    action: str = "sign_in",
) -> str:
    """Verify a second factor at a sign-in, or of an administrator who is signed in already.

    Return its kind. Raise AccessDenied when it is wrong, which counts as a wrong password does.
    An Assertion has to answer a challenge that the caller has sealed and then spends. See
    `Admins.check_second_factor` for `alone`.
    """
    admins = services.access.admins
    try:
        return await admins.check_second_factor(
            admin, proof, address=address, device=device, alone=alone
        )
    except TooManyFailures:
        raise
    except AccessDenied as denied:
        await _record_refusal(services, denied.reason, address, admin.name, action)
        raise


async def _admin_of(services: Services, needed: SecondFactorNeeded) -> AdminRecord:
    admin = await services.store.admins.find(id=needed.admin_id)
    if admin is None:
        raise AccessDenied("unknown administrator")
    return admin


async def service_token(services: Services, secret: str, address: str) -> ServiceTokenRecord:
    """Return the service token with this secret; raise AccessDenied if it is not valid.

    Refusals are limited by their address, as those of wrong API keys are; a valid token never is.
    """
    try:
        return await services.access.service_tokens.authenticate(secret, address)
    except AccessDenied as denied:
        most = services.settings.values.calls_per_minute_per_address
        kind = f"{denied.name} {denied.reason}" if denied.name else "wrong token"
        counted = f"{kind} {network_of(address)}"
        if not await services.access.limits.count_refusal(counted, most):
            raise TooManyFailures("too many wrong service tokens", seconds=60) from None
        await _record_refusal(services, denied.reason, address, denied.name)
        raise


async def confirm(
    services: Services,
    session: Session,
    password: str,
    proof: Proof | None,
    address: str,
    device: str = "",
    state: SealedState | None = None,
) -> None:
    """Verify a session by the password, and where the account has second factors by one of them.

    A passkey that has verified its user needs no password. `state` has the challenge of a passkey.
    Raise AccessDenied for a wrong answer, which is limited and recorded as at the sign-in, and
    SecondFactorNeeded without a proof. An account of an issuer confirms there.
    """
    admin, second = session.admin, None
    alone = not password and isinstance(proof, Assertion) and admin.subject is None
    if not alone:
        await check_password(services, admin, password, address, device, action=CONFIRM)
    if alone or await services.access.second_factors.of(admin):
        if proof is None:
            raise SecondFactorNeeded(admin.id, admin.generation)
        second = await check_second_factor(
            services, admin, proof, address, device, alone=alone, action=CONFIRM
        )
    if state is not None:
        await services.access.sealed_states.spend(state)
    by, second = ("passkey", None) if alone else ("password", second)
    await _confirmed(services, session.id, admin.name, address, by, second)


async def check_password(
    services: Services,
    admin: AdminRecord,
    password: str,
    address: str,
    device: str,
    *,
    action: str,
) -> None:
    """Verify the password of an administrator who is signed in; raise AccessDenied if wrong."""
    try:
        await services.access.admins.check_password(admin, password, address=address, device=device)
    except TooManyFailures:
        raise
    except AccessDenied as denied:
        await _record_refusal(services, denied.reason, address, admin.name, action)
        raise


async def confirm_external(
    services: Services,
    session_id: str,
    email: str,
    subject: str,
    claims: Mapping[str, Any],
    address: str,
) -> None:
    """Verify a session by a fresh sign-in at the issuer.

    Raise AccessDenied for another user, and for one who is not listed any more, and
    SecondFactorNeeded when the administrator has second factors here.
    """
    admin = await services.access.sessions.administrator(session_id)
    if admin is None or admin.subject != subject:
        name = admin.name if admin else None
        await _record_refusal(services, "another user of the issuer", address, name, CONFIRM)
        raise AccessDenied("the issuer authenticated another user than the session's")
    try:
        await _require_listed(services, email, subject, claims, address)
    except AccessDenied as refused:
        await _record_refusal(services, refused.reason, address, admin.name, CONFIRM)
        raise
    if await services.access.second_factors.of(admin):
        raise SecondFactorNeeded(admin.id, admin.generation)
    await _confirmed(services, session_id, admin.name, address, "oidc")


async def _confirmed(
    services: Services,
    session_id: str,
    name: str,
    address: str,
    by: str,
    second: str | None = None,
) -> None:
    """Record that the administrator of a session has proved who they are; every way ends here."""
    await services.access.sessions.verify(session_id)
    await AdminContext(services, name, address).changed("confirm", by=by, second=second)


async def _require_listed(
    services: Services, email: str, subject: str, claims: Mapping[str, Any], address: str
) -> None:
    """Raise AccessDenied unless PVEMCP_OIDC_ADMINS lists the user.

    One that was listed before, as by a group that the user has left, is signed out everywhere, and
    loses all connections: the issuer has just said so.
    """
    if services.access.external.entry_of(email, claims) is not None:
        return
    admin = await services.access.admins.unlist(subject)
    if admin is not None:
        held = await services.store.connections.all(admin_id=admin.id)
        for connection in held:
            await services.connections.end(connection.id)
        context = AdminContext(services, admin.name, address)
        ended = len(held) or None
        await context.changed("admins.follow_issuer", name=admin.name, listed_as=None, ended=ended)
    raise AccessDenied("not among PVEMCP_OIDC_ADMINS")


async def _record_sign_in(
    services: Services, admin: AdminRecord, address: str, by: str, second: str | None = None
) -> None:
    await AdminContext(services, admin.name, address).changed("sign_in", by=by, second=second)


async def _record_first_step(
    services: Services, needed: SecondFactorNeeded, address: str, by: str
) -> None:
    """Record a right first step: without the second one, the password may be in wrong hands."""
    admin = await _admin_of(services, needed)
    await AdminContext(services, admin.name, address).recorded("sign_in.first_step", by=by)


async def _record_refusal(
    services: Services, reason: str, address: str, name: str | None, action: str = "sign_in"
) -> None:
    attempt = Event(
        tool=f"admin.{action}",
        key_name=name,
        address=address,
        outcome=Outcome.REFUSED,
        reason=reason,
    )
    await services.audit.refused_sign_in(attempt)
