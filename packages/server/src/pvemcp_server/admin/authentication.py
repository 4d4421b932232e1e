"""Sign-in of administrators: every sign-in and every refusal is recorded in the audit."""

from pvemcp_server.admin.context import AdminContext
from pvemcp_server.audit import Event, Outcome
from pvemcp_server.errors import AccessDenied, BadArgument, TooManyFailures
from pvemcp_server.services import Services
from pvemcp_server.store.records import AdminRecord


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
    services: Services, email: str, subject: str, address: str
) -> AdminRecord:
    """Return the administrator that the OpenID Connect issuer identified.

    Raise AccessDenied unless PVEMCP_OIDC_ADMINS lists the e-mail address.
    """
    try:
        _check_listed(services, email)
        admin = await services.access.admins.sign_in_external(subject, email)
    except (AccessDenied, BadArgument) as refused:
        await _record_refusal(services, str(refused), address, email)
        raise
    await AdminContext(services, admin.name, address).changed("sign_in", by="oidc")
    return admin


def _check_listed(services: Services, email: str) -> None:
    if not services.access.external.lists(email):
        raise AccessDenied("not among PVEMCP_OIDC_ADMINS")


async def _record_refusal(services: Services, reason: str, address: str, name: str | None) -> None:
    attempt = Event(
        tool="admin.sign_in",
        key_name=name,
        address=address,
        outcome=Outcome.REFUSED,
        reason=reason,
    )
    await services.audit.refused(attempt)
