"""The authorization endpoint and the page on which a user consents (OAuth 2.1, 4.1)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.datastructures import FormData

from pvemcp_server.access.model import ANY, Role
from pvemcp_server.errors import BadArgument, CallError
from pvemcp_server.oauth.connections import MOST_OF_CLIENT, Choice
from pvemcp_server.oauth.person import Person, PersonSignIn
from pvemcp_server.oauth.rules import RoleChoice, has_group_rules, role_choices
from pvemcp_server.oauth.scopes import NEEDED, Scope
from pvemcp_server.settings import Values
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.records import ConnectionRecord, ConsentRecord
from pvemcp_server.toolkit.registry import tools
from pvemcp_server.web.oauth.request import (
    AuthorizationRequest,
    RefusedRequest,
    Return,
    authorization_request,
)
from pvemcp_server.web.oauth.session import (
    AUTHORIZE,
    SIGN_IN,
    SignInNeeded,
    admin_of,
    at,
    end,
    next_step,
    person_of,
    record,
    session_cookie,
    session_of,
)
from pvemcp_server.web.session import services_of
from pvemcp_server.web.templates import page

router = APIRouter()
CONSENT: Final = "/oauth/consent"
NO_ROLE: Final = (
    "Your role as an administrator may not connect programs unless a connection rule for this role "
    "allows it. An owner adds one."
)
SURPLUS: Final = f"{MOST_OF_CLIENT} other connections of the program were used or made since"


@dataclass(frozen=True, slots=True)
class Ability:
    """What a role permits within the scopes that a client asks for, in plain words."""

    scope: Scope
    tools: Sequence[str]


@router.get(AUTHORIZE)
async def authorize(request: Request) -> Response:
    """Show the consent to a user who has signed in; lead all others to the sign-in."""
    try:
        authorization = await authorization_request(request)
    except RefusedRequest as refused:
        error = refused.error
        url = refused.answer.url(error=error.error, error_description=error.description)
        if refused.answer.is_loopback:
            return RedirectResponse(url, 303)
        # no automatic redirect before the user has signed in: anyone can register a client, and
        # so would make this server lead to any site (RFC 9700, 4.11.2)
        return page(
            request, "oauth_error.html", text=str(error), then=url, to=refused.answer.destination
        )
    session = await session_of(request)
    if session and session.sign_in.challenges:
        return next_step(request, session.sign_in)
    session, person = await person_of(request)
    return await _consent_page(request, authorization, session, person)


@router.post(CONSENT)
async def consent(request: Request) -> Response:
    """Connect the client, or decline; either ends the session, so that each form counts once."""
    authorization = await authorization_request(request)
    session, person = await person_of(request)
    form = await request.form()
    session.check_csrf(str(form.get("csrf", "")))
    answer = authorization.answer
    if form.get("decision") != "connect":
        url = answer.url(error="access_denied", error_description="The user declined.")
        response = _continue(request, answer, "Declined", url)
        await end(request, response, session)
        await record(request, "decline", person, client=authorization.name.shown)
        return response
    if not await services_of(request).people.sessions.end(session.id):
        raise SignInNeeded  # the form was sent twice
    try:
        connection = await _connect(request, authorization, person, form)
    except CallError as error:
        return await _ask_again(request, authorization, session, str(error))
    code = await services_of(request).oauth.tokens.issue_code(
        connection,
        redirect_uri=answer.redirect_uri,
        challenge=authorization.challenge,
        scopes=connection.scopes,
        resource=authorization.resource,
    )
    response = _continue(request, answer, "Connected", answer.url(code=code))
    await end(request, response, session)
    return response


async def _connect(
    request: Request, authorization: AuthorizationRequest, person: Person, form: FormData
) -> ConnectionRecord:
    """Make the connection that the user has chosen, and end the one that it leaves no room for."""
    connections = services_of(request).connections
    choice = await _choice(request, authorization, person, form)
    connection = await connections.connect(person, authorization.name, choice)
    try:
        await _choice(request, authorization, person, form)  # a rule may have been removed since
        await record(
            request,
            "connect",
            person,
            key_id=connection.id,
            client=authorization.name.shown,
            role=choice.role.name,
            clusters=list(choice.clusters),
            scopes=list(choice.scopes),
            expires=choice.expires.isoformat(timespec="seconds"),
        )
    except CallError:
        await connections.end(connection.id, person)
        raise
    for old in await connections.surplus(connection):
        await connections.end(old.id, person)
        await record(request, "end", person, key_id=old.id, client=old.client_name, reason=SURPLUS)
    return connection


def _continue(request: Request, answer: Return, title: str, url: str) -> Response:
    """Return a page that leads back to the client: a form may not lead to other sites."""
    text = f"You are sent back to {answer.destination}. If nothing happens, use the button."
    return page(request, "oauth_continue.html", title=title, text=text, then=url)


async def _choice(
    request: Request, authorization: AuthorizationRequest, person: Person, form: FormData
) -> Choice:
    """Return what the user has chosen; raise BadArgument for a choice that is not offered."""
    role = str(form.get("role", ""))
    chosen = next((each for each in await _roles(request, person) if each.role.name == role), None)
    if chosen is None:
        raise BadArgument("role", "choose one of the list.")
    clusters = tuple(sorted({str(name) for name in form.getlist("cluster")}))
    if not clusters or set(clusters) - set(await _clusters(request, person)):
        raise BadArgument("clusters", "choose one or more of the list.")
    chosen.check(clusters)
    read_only = form.get("read_only") is not None
    scopes = (Scope.READ,) if read_only else authorization.scopes
    days = _days(await services_of(request).settings.current())
    expires = utc_now().replace(microsecond=0) + timedelta(days=days)
    return Choice(chosen.role, scopes, expires, clusters, read_only)


async def _ask_again(
    request: Request, authorization: AuthorizationRequest, session: PersonSignIn, wrong: str
) -> Response:
    """Show the consent again, in a new session, with the reason."""
    sessions, person = services_of(request).people.sessions, session.sign_in.person
    if person is None:
        raise SignInNeeded
    token = await sessions.open(session.sign_in)
    renewed = sessions.session(token, session.sign_in)
    response = await _consent_page(request, authorization, renewed, person, wrong)
    session_cookie(request).set(response, token)
    return response


async def _consent_page(
    request: Request,
    authorization: AuthorizationRequest,
    session: PersonSignIn,
    person: Person,
    wrong: str = "",
) -> Response:
    services = services_of(request)
    roles, clusters = await _roles(request, person), await _clusters(request, person)
    if not roles:
        return page(request, "oauth_error.html", status=403, text=NO_ROLE, then="", to="")
    held = await services.connections.of(person.subject, authorization.client.id)
    before = await services.store.consents.find(
        subject=person.subject, client_id=authorization.client.id
    )
    if before is not None and before.expires <= utc_now():
        before = None
    chosen = [name for name in clusters if before and {name, ANY} & {*before.clusters}]
    return page(
        request,
        "oauth_consent.html",
        status=422 if wrong else 200,
        wrong=wrong,
        problems=session.sign_in.problems,
        token=session.csrf,
        authorization=authorization,
        person=person,
        clusters=clusters,
        chosen=chosen or clusters,
        roles=roles,
        role=_role_of(before, roles),
        abilities={each.role.name: _abilities(each.role, authorization.scopes) for each in roles},
        read_only=before.read_only if before else False,
        before=before,
        is_known=_asks_no_more(authorization, before, roles) and bool(chosen) and not wrong,
        held=held,
        is_full=len(held) >= MOST_OF_CLIENT,
        days=_days(await services.settings.current()),
        query=request.url.query,
        add=at(request, SIGN_IN) if person.admin_id is None else "",
    )


def _asks_no_more(
    authorization: AuthorizationRequest, before: ConsentRecord | None, roles: Sequence[RoleChoice]
) -> bool:
    """Return whether the user has consented to all that the client asks for, with a role of theirs.

    This shortens the page, and never answers for the user: any program can use the name and the
    redirect of one on the user's computer (RFC 8252, 8.6).
    """
    if before is None or not set(authorization.scopes) <= {*before.scopes}:
        return False
    return any(each.role.id == before.role_id for each in roles)


def _days(values: Values) -> int:
    """Return how long a connection lasts: never longer than a key may."""
    return min(values.connection_days, values.longest_key_life_days or values.connection_days)


async def _roles(request: Request, person: Person) -> list[RoleChoice]:
    services = services_of(request)
    admin = await admin_of(request, person)
    groups: Mapping[str, frozenset[str]] = {}
    if person.accounts and await has_group_rules(services.store):
        groups = await services.people.groups(person)
    role = services.access.admins.role(admin) if admin else None
    return await role_choices(services.store, person, groups=groups, admin_role=role)


async def _clusters(request: Request, person: Person) -> list[str]:
    """List the clusters to choose from: those of the accounts, or all for an administrator."""
    if person.admin_id is None:
        return sorted(person.accounts)
    return list(await services_of(request).clusters.kinds())


def _role_of(before: ConsentRecord | None, roles: Sequence[RoleChoice]) -> str:
    """Return the role to offer: the latest one if it is still allowed, else the first."""
    for each in roles:
        if before is not None and each.role.id == before.role_id:
            return each.role.name
    return roles[0].role.name if roles else ""


def _abilities(role: Role, scopes: Sequence[Scope]) -> list[Ability]:
    """Return what the role permits within the scopes, with the tools that do it."""
    abilities = []
    for effect, scope in NEEDED.items():
        names = [
            name
            for name, tool in tools().items()
            if tool.effect is effect
            and tool.toolset is None
            and any(grant.gives(name, effect) for grant in role.grants)
        ]
        if names and scope in scopes:
            abilities.append(Ability(scope, names))
    return abilities
