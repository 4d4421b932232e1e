"""Signing in: each time is on record, and so is each refusal."""

from pvemcp_server.admin.context import AdminContext
from pvemcp_server.audit import Event, Outcome
from pvemcp_server.errors import AccessDenied, TooManyFailures
from pvemcp_server.services import Services
from pvemcp_server.store.records import AdminRecord


async def sign_in(services: Services, name: str, password: str, address: str) -> AdminRecord:
    """The administrator with this name and password; raises AccessDenied, whatever is wrong."""
    try:
        admin = await services.access.admins.sign_in(name, password, address=address)
    except TooManyFailures:
        raise
    except AccessDenied as denied:
        known = await services.store.admins.find(name=name)
        # what is no name may be a password: people type it into that field, too
        await _note_refusal(services, denied.reason, address, known.name if known else None)
        raise
    await AdminContext(services, admin.name, address).changed("sign_in", by="password")
    return admin


async def sign_in_external(
    services: Services, email: str, subject: str, address: str
) -> AdminRecord:
    """The administrator for whom the issuer vouches, when the configuration lets them in."""
    try:
        _check_configured(services, email)
        admin = await services.access.admins.sign_in_external(subject, email)
    except AccessDenied as denied:
        await _note_refusal(services, denied.reason, address, email)
        raise
    await AdminContext(services, admin.name, address).changed("sign_in", by="oidc")
    return admin


def _check_configured(services: Services, email: str) -> None:
    if email.casefold() not in {one.casefold() for one in services.config.oidc_admins}:
        raise AccessDenied("not among PVEMCP_OIDC_ADMINS")


async def _note_refusal(services: Services, reason: str, address: str, name: str | None) -> None:
    """Puts an attempt on record that was not let through."""
    attempt = Event(
        tool="admin.sign_in",
        key_name=name,
        address=address,
        outcome=Outcome.REFUSED,
        reason=reason,
    )
    await services.audit.refused(attempt)
