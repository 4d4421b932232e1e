"""The account of the administrator who is signed in: their own second factors.

These are no operations: each needs the administrator's presence and a recent sign-in.
"""

from datetime import timedelta
from typing import Final

from pvemcp_server.access import passkeys
from pvemcp_server.access.passkeys import RelyingParty
from pvemcp_server.access.sealed_state import SealedState
from pvemcp_server.access.second_factors import new_totp_secret
from pvemcp_server.access.sessions import Session
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.errors import AccessDenied, BadArgument
from pvemcp_server.store.records import FactorKind

ENROLMENT_LIFE: Final = timedelta(minutes=10)
TOTP: Final = "enrolment of an authenticator app"
PASSKEY: Final = "enrolment of a passkey"


def begin_totp(context: AdminContext, session: Session, name: str) -> tuple[str, str]:
    """Return a new secret for an authenticator app, and the sealed state of its enrolment."""
    secret = new_totp_secret()
    states = context.services.access.sealed_states
    values = {"secret": secret, "name": name}
    return secret, states.seal(TOTP, ENROLMENT_LIFE, bound=session.id, **values)


async def finish_totp(
    context: AdminContext, session: Session, sealed: str, code: str
) -> list[str] | None:
    """Add the app after its first right code; return the recovery codes if it made new ones."""
    state = await _opened(context, session, TOTP, sealed)
    name, secret = state.values["name"], state.values["secret"]
    factors = context.services.access.second_factors
    factors.check_totp(secret, code)  # a wrong code may be typed again
    await _spend(context, state)  # one secret twice would accept each of its codes twice
    codes = await factors.add_totp(session.admin, name, secret, code, session_id=session.id)
    await _record_added(context, session, FactorKind.TOTP, name)
    return codes


async def begin_passkey(
    context: AdminContext, session: Session, name: str, party: RelyingParty
) -> tuple[str, str]:
    """Return the options for the browser, and the sealed state of the enrolment."""
    access, admin = context.services.access, session.admin
    sealed = access.sealed_states.seal(PASSKEY, ENROLMENT_LIFE, bound=session.id, name=name)
    state = await access.sealed_states.open(PASSKEY, sealed, bound=session.id)
    handle = access.second_factors.user_handle(admin)
    known = await access.second_factors.passkeys_of(admin, party)
    options = passkeys.creation_options(party, admin.name, handle, state.nonce, known)
    return options, sealed


async def finish_passkey(
    context: AdminContext, session: Session, party: RelyingParty, sealed: str, answer: str
) -> list[str] | None:
    """Add the passkey that the browser has made; return as `finish_totp` does."""
    access = context.services.access
    state = await _opened(context, session, PASSKEY, sealed)
    made = passkeys.verify_creation(party, state.nonce, answer)
    await _spend(context, state)
    name = state.values["name"]
    codes = await access.second_factors.add_passkey(
        session.admin, name, party, made, session_id=session.id
    )
    await _record_added(context, session, FactorKind.PASSKEY, name)
    return codes


async def _opened(
    context: AdminContext, session: Session, purpose: str, sealed: str
) -> SealedState:
    """Return the state of an enrolment that this session has begun; raise BadArgument."""
    try:
        states = context.services.access.sealed_states
        return await states.open(purpose, sealed, bound=session.id)
    except AccessDenied as denied:
        raise BadArgument("state", f"{denied.reason}; begin again.") from None


async def _spend(context: AdminContext, state: SealedState) -> None:
    """Use up an enrolment; raise BadArgument if it was finished before."""
    try:
        await context.services.access.sealed_states.spend(state)
    except AccessDenied as denied:
        raise BadArgument("state", f"{denied.reason}; begin again.") from None


async def remove(context: AdminContext, session: Session, factor_id: int) -> None:
    """Remove one of the administrator's own second factors."""
    admin = session.admin
    removed = await context.services.access.second_factors.remove(admin, factor_id)
    await context.changed(
        "account.remove_second_factor", name=admin.name, kind=str(removed.kind), factor=removed.name
    )


async def new_recovery_codes(context: AdminContext, session: Session) -> list[str]:
    """Return new recovery codes; the old ones are refused from now on."""
    factors, admin = context.services.access.second_factors, session.admin
    if not await factors.of(admin):
        raise BadArgument("codes", "recovery codes need a second factor; add one first.")
    codes = await factors.new_recovery_codes(admin)
    await context.changed("account.new_recovery_codes", name=admin.name)
    return codes


async def _record_added(
    context: AdminContext, session: Session, kind: FactorKind, name: str
) -> None:
    owner = session.admin.name
    await context.changed("account.add_second_factor", name=owner, kind=str(kind), factor=name)
