"""The page on which users see and end their own connections."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from pvemcp_server.oauth.connections import LeftToken
from pvemcp_server.oauth.person import Person, PersonSignIn
from pvemcp_server.web.oauth.session import CONNECTIONS, SIGN_IN, Text, at, end, person_of, record
from pvemcp_server.web.session import services_of
from pvemcp_server.web.templates import page

router = APIRouter(prefix=CONNECTIONS)


@router.get("")
async def show(request: Request) -> Response:
    """List the connections of the user who has signed in."""
    return await _connections_page(request, *await person_of(request))


@router.post("/end")
async def end_connection(request: Request, id: Text = "", csrf: Text = "") -> Response:  # noqa: A002 - the field's name
    """End a connection of the user; one of others is answered like one that does not exist."""
    session, person = await person_of(request)
    session.check_csrf(csrf)
    services = services_of(request)
    left: list[LeftToken] = []
    connection = await services.store.connections.find(id=id, subject=person.subject)
    if connection is not None:
        left = await services.connections.end(connection.id, person, forget=True)
        await record(request, "end", person, key_id=connection.id, client=connection.client_name)
    return await _connections_page(request, session, person, left)


@router.post("/sign-out")
async def sign_out(request: Request, csrf: Text = "") -> Response:
    """End the session; an authorization request goes on with another account."""
    session, _ = await person_of(request)
    session.check_csrf(csrf)
    response = RedirectResponse(at(request, SIGN_IN), 303)
    await end(request, response, session)
    return response


async def _connections_page(
    request: Request, session: PersonSignIn, person: Person, left: list[LeftToken] | None = None
) -> Response:
    services = services_of(request)
    roles = {record.id: record.name for record in await services.store.roles.all()}
    return page(
        request,
        "oauth_connections.html",
        token=session.csrf,
        person=person,
        connections=await services.connections.of(person.subject),
        roles=roles,
        left=left or [],
    )
