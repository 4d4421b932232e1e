"""Sign-in of administrators: every sign-in and every refusal is recorded in the audit."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from pvemcp_server.access.admins import account_of
from pvemcp_server.access.passkeys import Assertion
from pvemcp_server.access.sealed_state import SealedState
from pvemcp_server.access.second_factors import Code, Proof
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.audit import Event, Outcome
from pvemcp_server.errors import (
    AccessDenied,
    BadArgument,
    LocalSignInOff,
    SecondFactorNeeded,
    TooManyFailures,
)
from pvemcp_server.services import Services
from pvemcp_server.store.records import AdminRecord

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
            raise
        admin = await _admin_of(services, needed)
        second = await check_second_factor(services, admin, Code(code), address, device)
        admin = await admins.finish_sign_in(admin.id, account_of(admin))
    except AccessDenied as denied:
        if not isinstance(denied, _UNRECORDED):
            record = await services.store.admins.find(name=name)
            # an unknown name is not recorded: it may be a password typed into the wrong field
            await _record_refusal(services, denied.reason, address, record.name if record else None)
        raise
    await _record_sign_in(services, admin, address, "password", second)
    return admin


async def sign_in_external(
    services: Services, email: str, subject: str, address: str
) -> AdminRecord:
    """Return the administrator that the OpenID Connect issuer identified.

    Raise AccessDenied unless PVEMCP_OIDC_ADMINS lists the e-mail address, and SecondFactorNeeded
    when the administrator has second factors here.
    """
    try:
        _check_listed(services, email)
        admin = await services.access.admins.sign_in_external(subject, email)
    except SecondFactorNeeded:
        raise
    except (AccessDenied, BadArgument) as refused:
        await _record_refusal(services, str(refused), address, email)
        raise
    await _record_sign_in(services, admin, address, "oidc")
    return admin


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
            await _record_refusal(services, denied.reason, address, None)
        raise
    await _record_sign_in(services, admin, address, "passkey")
    return admin


async def begin_second_step(services: Services, needed: SecondFactorNeeded, by: str) -> str:
    """Return the sealed state of a sign-in whose first step was right, for this browser only."""
    admin = await _admin_of(services, needed)
    return services.access.sealed_states.seal(
        SECOND_STEP, SECOND_STEP_LIFE, admin=admin.id, account=account_of(admin), by=by
    )


async def pending_sign_in(services: Services, sealed: str) -> PendingSignIn:
    """Return the sign-in of a sealed state; raise AccessDenied when it is not valid any more."""
    state = await services.access.sealed_states.open(SECOND_STEP, sealed)
    values = state.values
    admin = await services.access.admins.pending(values["admin"], values["account"])
    return PendingSignIn(admin, state)


async def finish_second_step(
    services: Services, pending: PendingSignIn, proof: Proof, address: str, device: str
) -> AdminRecord:
    """Return the administrator after the second step; raise AccessDenied for a wrong factor."""
    second = await check_second_factor(services, pending.admin, proof, address, device)
    await services.access.sealed_states.spend(pending.state)
    values = pending.state.values
    admin = await services.access.admins.finish_sign_in(values["admin"], values["account"])
    await _record_sign_in(services, admin, address, values["by"], second)
    return admin


async def check_second_factor(
    services: Services, admin: AdminRecord, proof: Proof, address: str, device: str = ""
) -> str:
    """Verify a second factor at a sign-in, or of an administrator who is signed in already.

    Return its kind. Raise AccessDenied when it is wrong, which counts as a wrong password does.
    An Assertion has to answer a challenge that the caller has sealed and then spends.
    """
    admins = services.access.admins
    try:
        return await admins.check_second_factor(admin, proof, address=address, device=device)
    except TooManyFailures:
        raise
    except AccessDenied as denied:
        await _record_refusal(services, denied.reason, address, admin.name)
        raise


async def _admin_of(services: Services, needed: SecondFactorNeeded) -> AdminRecord:
    admin = await services.store.admins.find(id=needed.admin_id)
    if admin is None:
        raise AccessDenied("unknown administrator")
    return admin


def _check_listed(services: Services, email: str) -> None:
    if not services.access.external.lists(email):
        raise AccessDenied("not among PVEMCP_OIDC_ADMINS")


async def _record_sign_in(
    services: Services, admin: AdminRecord, address: str, by: str, second: str | None = None
) -> None:
    await AdminContext(services, admin.name, address).changed("sign_in", by=by, second=second)


async def _record_refusal(services: Services, reason: str, address: str, name: str | None) -> None:
    attempt = Event(
        tool="admin.sign_in",
        key_name=name,
        address=address,
        outcome=Outcome.REFUSED,
        reason=reason,
    )
    await services.audit.refused(attempt)
