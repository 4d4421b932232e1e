"""Sign-in of administrators, and confirming who one is during a session.

Every sign-in, every confirmation and every refusal is recorded in the audit.
"""

from collections.abc import Mapping
from typing import Any

from pvemcp_server.access.limits import network_of
from pvemcp_server.access.sessions import Session
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.audit import Event, Outcome
from pvemcp_server.errors import AccessDenied, BadArgument, TooManyFailures
from pvemcp_server.services import Services
from pvemcp_server.store.records import AdminRecord, ServiceTokenRecord


async def sign_in(
    services: Services, name: str, password: str, address: str, device: str = ""
) -> AdminRecord:
    """Return the administrator with this name and password; raise AccessDenied otherwise.

    `device` is the token of a browser that signed in before.
    """
    try:
        admin = await services.access.admins.sign_in(name, password, address=address, device=device)
    except TooManyFailures:
        raise
    except AccessDenied as denied:
        record = await services.store.admins.find(name=name)
        # an unknown name is not recorded: it may be a password typed into the wrong field
        await _record_refusal(services, denied.reason, address, record.name if record else None)
        raise
    await AdminContext(services, admin.name, address).changed("sign_in", by="password")
    return admin


async def sign_in_external(
    services: Services, email: str, subject: str, claims: Mapping[str, Any], address: str
) -> AdminRecord:
    """Return the administrator that the OpenID Connect issuer identified.

    Raise AccessDenied unless PVEMCP_OIDC_ADMINS lists the e-mail address or one of the claims.
    """
    try:
        _check_listed(services, email, claims)
        admin = await services.access.admins.sign_in_external(subject, email, claims)
    except (AccessDenied, BadArgument) as refused:
        await _record_refusal(services, str(refused), address, email)
        raise
    await AdminContext(services, admin.name, address).changed("sign_in", by="oidc")
    return admin


async def service_token(services: Services, secret: str, address: str) -> ServiceTokenRecord:
    """Return the service token with this secret; raise AccessDenied if it is not valid.

    Refusals are limited by their address, as those of wrong API keys are; a valid token never is.
    """
    try:
        return await services.access.service_tokens.authenticate(secret, address)
    except AccessDenied as denied:
        most = services.settings.values.calls_per_minute_per_address
        if not services.access.limits.count_refusal(f"wrong token {network_of(address)}", most):
            raise TooManyFailures("too many wrong service tokens", seconds=60) from None
        await _record_refusal(services, denied.reason, address, None)
        raise


async def confirm_password(
    services: Services, session: Session, password: str, address: str, device: str = ""
) -> None:
    """Verify a session by the password of its administrator; raise AccessDenied otherwise.

    An attempt is limited as a sign-in is, and a refusal is recorded.
    """
    name = session.admin.name
    try:
        await services.access.admins.sign_in(name, password, address=address, device=device)
    except TooManyFailures:
        raise
    except AccessDenied as denied:
        await _record_refusal(services, denied.reason, address, name, "confirm")
        raise
    await confirmed(services, session.id, name, address, by="password")


async def confirm_external(services: Services, session_id: str, subject: str, address: str) -> None:
    """Verify a session by a fresh sign-in at the issuer; raise AccessDenied for another user."""
    admin = await services.access.sessions.administrator(session_id)
    if admin is None or admin.subject != subject:
        name = admin.name if admin else None
        await _record_refusal(services, "another user of the issuer", address, name, "confirm")
        raise AccessDenied("the issuer authenticated another user than the session's")
    await confirmed(services, session_id, admin.name, address, by="oidc")


async def confirmed(services: Services, session_id: str, name: str, address: str, by: str) -> None:
    """Record that the administrator of a session has proved who they are, `by` one of the ways.

    Every way ends here: those above, and any second factor.
    """
    await services.access.sessions.verify(session_id)
    await AdminContext(services, name, address).changed("confirm", by=by)


def _check_listed(services: Services, email: str, claims: Mapping[str, Any]) -> None:
    if services.access.external.entry_of(email, claims) is None:
        raise AccessDenied("not among PVEMCP_OIDC_ADMINS")


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
    await services.audit.refused(attempt)
