"""Pages on which users sign in to connect: with a Proxmox account, or as an administrator."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from proxmox_client.api.sign_in import Method
from pvemcp_server.errors import BadArgument, CallError, TooManyFailures
from pvemcp_server.networks import network_of
from pvemcp_server.oauth.addresses import Addresses
from pvemcp_server.oauth.people import RealmChoice
from pvemcp_server.oauth.person import SignIn
from pvemcp_server.oauth.security_keys import (
    host_of,
    relying_party_of,
    request_options,
    signed_answer,
    works_on,
)
from pvemcp_server.web.oauth.request import authorization_request
from pvemcp_server.web.oauth.session import (
    SIGN_IN,
    SignInNeeded,
    Text,
    at,
    keep,
    next_step,
    origin_of,
    record,
    record_refusal,
    remember_device,
    session_of,
)
from pvemcp_server.web.passkeys import page_origin, passkey_site_of
from pvemcp_server.web.session import retry_after, services_of, too_many_attempts
from pvemcp_server.web.templates import page

router = APIRouter(prefix=SIGN_IN)
callback_router = APIRouter()
OPENID_CALLBACK: Final = "/oauth/openid"
SUPPORTED: Final[Mapping[str, str]] = {
    "totp": "The six digits of your authenticator app",
    "recovery": "One of your recovery keys",
    "yubico": "Touch your Yubico OTP key in this field",
}
KEY_REFUSED: Final = (
    "Proxmox accepts a security key on this page only while its WebAuthn settings (Datacenter, "
    "Options) name no origin, or one that this page is at or below. Sign in again with another "
    "second factor, or ask an administrator of Proxmox."
)
# The codes of RFC 6749 and OpenID Connect in our words: anyone can make a link with another text
PROVIDER_ERRORS: Final[Mapping[str, str]] = {
    "access_denied": "The provider refused the sign-in, or you declined it there.",
    "login_required": "The provider needs a new sign-in; begin again.",
    "interaction_required": "The provider needs an answer of yours; begin again.",
    "consent_required": "The provider needs your consent; begin again.",
    "account_selection_required": "The provider needs you to choose an account; begin again.",
    "temporarily_unavailable": "The provider cannot answer now; begin again later.",
    "server_error": "The provider had an error of its own; begin again later.",
    **dict.fromkeys(
        (
            *("invalid_request", "unauthorized_client", "unsupported_response_type"),
            *("invalid_scope", "invalid_request_uri", "invalid_request_object"),
            *("request_not_supported", "request_uri_not_supported", "registration_not_supported"),
        ),
        "The provider does not accept this realm's requests: an administrator of Proxmox has to "
        "compare the realm with what the provider has registered.",
    ),
}
OTHER_ERROR: Final = "The provider did not sign you in."
BEGUN_ELSEWHERE: Final = "This sign-in is not in progress in this browser any more; begin again."


@router.get("")
async def show(request: Request) -> Response:
    """Ask for an account of Proxmox; signed in already, for one on a further cluster."""
    return await _sign_in_page(request)


@router.post("")
async def sign_in(request: Request, realm: Text, user: Text = "", password: Text = "") -> Response:
    """Sign in with a password, which goes to Proxmox and nowhere else."""
    services, before = services_of(request), await _progress(request)
    choice = None
    try:
        choice = (await services.people.realms()).get(realm)
        progress = await services.people.sign_in(choice, user, password, origin_of(request), before)
    except TooManyFailures as refused:
        return await _refused(request, refused, realm, user)
    except CallError as error:
        # what is not sent to Proxmox is no sign-in; the user may be a password in the wrong field
        if choice is not None and not isinstance(error, BadArgument):
            await record_refusal(request, f"refused at {choice.value}")
        return await _sign_in_page(request, str(error), realm, user, 403)
    response = next_step(request, progress)
    await _advance(request, response, before, progress)
    return response


@router.post("/openid")
async def begin_openid(request: Request, realm: Text) -> Response:
    """Lead to the provider of an OpenID realm, by Proxmox's own flow."""
    services, before = services_of(request), await _progress(request)
    base = Addresses(request.scope["state"]["base_url"]).base
    try:
        choice = (await services.people.realms()).get(realm)
        progress = await services.people.begin_openid(
            choice,
            f"{base}{OPENID_CALLBACK}",
            origin_of(request),
            before,
            request.url.query,
        )
    except TooManyFailures as refused:
        return await _refused(request, refused, realm)
    except CallError as error:
        return await _sign_in_page(request, str(error), realm, status=403)
    provider = progress.openid.request.url if progress.openid else f"{base}{SIGN_IN}"
    # a page of ours continues: a form may not lead to other sites (form-action)
    response = page(request, "oauth_continue.html", title="Signing in", then=provider, text="")
    await keep(request, response, progress)
    return response


@callback_router.get(OPENID_CALLBACK)
async def finish_openid(
    request: Request,
    state: Annotated[str, Query()] = "",
    code: Annotated[str, Query()] = "",
    error: Annotated[str, Query()] = "",
) -> Response:
    """Finish a sign-in at the provider of an OpenID realm, and go on where it was begun."""
    people, before = services_of(request).people, await _progress(request)
    step = before.openid
    request.scope["query_string"] = (step.query if step else "").encode("latin-1")
    request = Request(request.scope, request.receive)
    session = await session_of(request)
    is_own = step is not None and state == step.request.state
    # the first answer spends the state, also in another process
    if not (session and is_own and await people.sessions.end(session.id)):
        try:  # it is limited, and no attempt that belongs into the audit
            await people.count_failure(network_of(origin_of(request).address))
        except TooManyFailures as refused:
            return await _refused(request, refused, "")
        return await _sign_in_page(request, BEGUN_ELSEWHERE, status=403)
    without = replace(before, openid=None)
    refusal = PROVIDER_ERRORS.get(error, OTHER_ERROR) if error else ""
    try:
        progress = await people.finish_openid(before, code, origin_of(request), refusal)
    except TooManyFailures as refused:  # was not sent: the same answer may be sent again
        response = await _refused(request, refused, "", progress=before)
        await keep(request, response, before)
        return response
    except CallError as refused:
        await record_refusal(request, "refused by OpenID")
        response = await _sign_in_page(request, str(refused), status=403, progress=without)
        await keep(request, response, without)
        return response
    response = next_step(request, progress)
    await _advance(request, response, before, progress)
    return response


@router.get("/second-factor")
async def show_second_factor(request: Request) -> Response:
    """Ask for the second factor of the first cluster that wants one."""
    return await _second_page(request)


@router.post("/second-factor")
async def second_factor(
    request: Request,
    csrf: Text = "",
    method: Text = "",
    code: Text = "",
    credential: Text = "",
    skip: Text = "",
) -> Response:
    """Finish a sign-in with its second factor, or go on without this cluster."""
    session = await session_of(request)
    if session is None or not session.sign_in.challenges:
        raise SignInNeeded
    session.check_csrf(csrf)
    before = session.sign_in
    if skip:
        progress = SignIn(before.person, before.challenges[1:], None, before.problems)
    else:
        try:
            progress = await _answered(request, before, method, code, credential)
        except TooManyFailures as refused:
            response = await _second_page(request, too_many_attempts(refused), 429)
            response.headers.update(retry_after(refused))
            return response
        except CallError as error:
            first = before.challenges[0]
            reason = f"wrong second factor at {first.place.name}"
            if not isinstance(error, BadArgument):
                await record_refusal(request, reason, first.factor.userid)
                if credential:  # its challenge counts once, so the password is asked for again
                    progress = SignIn(before.person, before.challenges[1:], None, before.problems)
                    text = f"{error} {KEY_REFUSED}"
                    response = await _sign_in_page(request, text, status=403, progress=progress)
                    await keep(request, response, progress)
                    return response
            return await _second_page(request, str(error), 403)
    response = next_step(request, progress)
    await _advance(request, response, before, progress)
    return response


async def _answered(
    request: Request, before: SignIn, method: str, code: str, credential: str
) -> SignIn:
    """Send a code, or the credential of a security key, to Proxmox."""
    people, origin = services_of(request).people, origin_of(request)
    if credential:
        value = signed_answer(before.challenges[0].factor, credential)
        host = host_of(page_origin(request))
        return await people.answer(before, "webauthn", value, origin, page_host=host)
    known: dict[str, Method] = {"totp": "totp", "recovery": "recovery", "yubico": "yubico"}
    return await people.answer(before, known.get(method, "totp"), code.strip(), origin)


async def _advance(request: Request, response: Response, before: SignIn, after: SignIn) -> None:
    """Keep the progress; record each account that has signed in, and know this browser again.

    Remove what ended connections of the account have left on its cluster.
    """
    person = after.person
    if person is None:
        await keep(request, response, after)
        return
    held = before.person.accounts if before.person else {}
    new = {name: each for name, each in person.accounts.items() if name not in held}
    for name, account in new.items():
        remember_device(request, response, account.userid)
        await record(request, "sign_in", person, account=account.userid, on=name)
    await keep(request, response, after)
    remove_strays = services_of(request).connections.remove_strays
    await asyncio.gather(*map(remove_strays, new.values()))


async def _progress(request: Request) -> SignIn:
    """Return how far the sign-in of this browser is; an administrator's is never added to."""
    session = await session_of(request)
    is_admin = session and session.sign_in.person and session.sign_in.person.admin_id is not None
    return session.sign_in if session and not is_admin else SignIn()


async def _refused(
    request: Request,
    refused: TooManyFailures,
    realm: str,
    user: str = "",
    *,
    progress: SignIn | None = None,
) -> Response:
    text = too_many_attempts(refused)
    response = await _sign_in_page(request, text, realm, user, 429, progress=progress)
    response.headers.update(retry_after(refused))
    return response


async def _sign_in_page(
    request: Request,
    wrong: str = "",
    realm: str = "",
    user: str = "",
    status: int = 200,
    *,
    progress: SignIn | None = None,
) -> Response:
    """Show the form; `progress` is that of a session which this request has ended."""
    authorization = await authorization_request(request) if request.url.query else None
    realms = await services_of(request).people.realms()
    person = (progress or await _progress(request)).person
    held = person.accounts if person else {}
    free = [each for each in realms.choices if held.keys().isdisjoint(each.clusters)]
    with_password = [each for each in free if not each.is_openid]
    return page(
        request,
        "oauth_sign_in.html",
        status=status,
        wrong=wrong,
        user=user,
        authorization=authorization,
        realms=with_password,
        chosen=realm or _default(with_password),
        openid=[each for each in free if each.is_openid],
        problems=realms.problems,
        person=person,
        query=request.url.query,
        back=at(request, "/oauth/authorize") if request.url.query else "/connections",
    )


def _default(realms: list[RealmChoice]) -> str:
    """Return the realm to offer first: a shared one, a cluster's own default, or pve."""
    preferred = [
        *(each for each in realms if each.is_shared),
        *(each for each in realms if each.is_default),
        *(each for each in realms if each.realm == "pve"),
    ]
    return preferred[0].value if preferred else ""


async def _second_page(request: Request, wrong: str = "", status: int = 200) -> Response:
    session = await session_of(request)
    if session is None or not session.sign_in.challenges:
        return RedirectResponse(at(request, SIGN_IN), 303)
    challenge = session.sign_in.challenges[0]
    factor, site = challenge.factor, passkey_site_of(request).party
    has_key = site is not None and works_on(factor, site.id)
    return page(
        request,
        "oauth_second_factor.html",
        status=status,
        wrong=wrong,
        token=session.csrf,
        cluster=challenge.place.name,
        userid=factor.userid,
        options=request_options(factor) if has_key else "",
        key_domain=relying_party_of(factor),
        host=urlsplit(page_origin(request)).netloc,
        methods={each: SUPPORTED[each] for each in factor.methods if each in SUPPORTED},
        has_u2f="u2f" in factor.methods,
        may_skip=session.sign_in.person is not None,
        query=request.url.query,
    )
