"""The session of a user who signs in to connect: its cookie, and where the user goes next."""

from typing import Annotated, Final

from fastapi import Form, Request, Response
from fastapi.responses import RedirectResponse

from pvemcp_server.access.sign_in_limits import DEVICE_LIFE
from pvemcp_server.audit import Event, Outcome
from pvemcp_server.oauth.people import Origin
from pvemcp_server.oauth.person import Person, PersonSignIn, SignIn
from pvemcp_server.store.records import AdminRecord
from pvemcp_server.web.session import Cookie, address_of, cookie_of, services_of

SESSION: Final = "pvemcp_person"
DEVICE: Final = "pvemcp_person_device"  # strangers cannot lock a browser out that has it
AUTHORIZE: Final = "/oauth/authorize"
SIGN_IN: Final = "/oauth/sign-in"
SECOND_FACTOR: Final = "/oauth/sign-in/second-factor"
CONNECTIONS: Final = "/connections"
Text = Annotated[str, Form()]


class SignInNeeded(Exception):
    """No user has signed in in this browser, or not completely."""


def session_cookie(request: Request) -> Cookie:
    """Return the cookie of the session; lax: clients lead to our pages from theirs."""
    return cookie_of(services_of(request).config, SESSION, "/", "lax")


def device_cookie(request: Request) -> Cookie:
    """Return the cookie of a browser that has signed in before."""
    return cookie_of(services_of(request).config, DEVICE, "/oauth", "lax")


def origin_of(request: Request) -> Origin:
    """Return where the request comes from, for the limits of sign-ins."""
    device = request.cookies.get(device_cookie(request).name, "")
    return Origin(address_of(request), device)


async def session_of(request: Request) -> PersonSignIn | None:
    """Return the session of the cookie; None without a valid one."""
    token = request.cookies.get(session_cookie(request).name)
    return await services_of(request).people.sessions.find(token) if token else None


async def person_of(request: Request) -> tuple[PersonSignIn, Person]:
    """Return the session and its user; raise SignInNeeded unless the sign-in is complete.

    An administrator's account must not have changed since, nor their own session have ended.
    """
    session = await session_of(request)
    person = session.sign_in.person if session else None
    if session is None or person is None:
        raise SignInNeeded
    if person.admin_id is not None:
        await admin_of(request, person)
    return session, person


async def admin_of(request: Request, person: Person) -> AdminRecord | None:
    """Return the administrator who has signed in; None for a user of Proxmox.

    Raise SignInNeeded when the session that they signed in with has ended since, or the account
    may not be used.
    """
    if person.admin_id is None:
        return None
    admin = await services_of(request).access.sessions.administrator(person.admin_session)
    if admin is None or (admin.id, admin.generation) != (person.admin_id, person.generation):
        raise SignInNeeded
    return admin


async def keep(request: Request, response: Response, sign_in: SignIn) -> None:
    """Store how far the sign-in is in a new session, in place of the browser's old one."""
    sessions, before = services_of(request).people.sessions, await session_of(request)
    session_cookie(request).set(response, await sessions.open(sign_in))
    if before is not None:
        await sessions.end(before.id)


async def end(request: Request, response: Response, session: PersonSignIn) -> bool:
    """End the session and delete its cookie; return False if it was ended before."""
    session_cookie(request).delete(response)
    return await services_of(request).people.sessions.end(session.id)


def remember_device(request: Request, response: Response, userid: str) -> None:
    """Mark the browser as one in which this account has signed in."""
    device = services_of(request).people.devices.issue(userid)
    lifetime = int(DEVICE_LIFE.total_seconds())
    device_cookie(request).set(response, device, max_age=lifetime)


def at(request: Request, path: str) -> str:
    """Return a path with the authorization request in the query of this one, if there is any."""
    query = request.url.query
    return f"{path}?{query}" if query else path


def next_step(request: Request, sign_in: SignIn) -> Response:
    """Redirect to what follows: a second factor, the consent, or the user's connections."""
    if sign_in.challenges:
        return RedirectResponse(at(request, SECOND_FACTOR), 303)
    if sign_in.person is None:
        return RedirectResponse(at(request, SIGN_IN), 303)
    return RedirectResponse(at(request, AUTHORIZE) if request.url.query else CONNECTIONS, 303)


async def record(
    request: Request,
    action: str,
    person: Person,
    *,
    key_id: str | None = None,
    client: str | None = None,
    **details: object,
) -> None:
    """Record in the audit what a user did; raise Unrecorded where that is impossible."""
    await services_of(request).audit.admin(
        Event(
            tool=f"oauth.{action}",
            key_id=key_id,
            key_name=person.name,
            client=client,
            address=address_of(request),
            arguments=details,
            outcome=Outcome.OK,
        )
    )


async def record_refusal(request: Request, reason: str, userid: str = "") -> None:
    """Record a sign-in that was refused, of a user whose password was right if one is given."""
    await services_of(request).audit.refused_sign_in(
        Event(
            tool="oauth.sign_in",
            key_name=userid or None,
            address=address_of(request),
            outcome=Outcome.REFUSED,
            reason=reason,
        )
    )
