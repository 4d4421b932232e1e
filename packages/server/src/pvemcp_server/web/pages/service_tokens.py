"""Page Service tokens: what programs present at the admin REST API, each shown once."""

from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response

from pvemcp_server.admin import service_tokens
from pvemcp_server.web.pages.forms import fields_of
from pvemcp_server.web.session import Reading, SignedIn, Writing, may
from pvemcp_server.web.templates import Navigation, page, reload

router = APIRouter(prefix="/service-tokens")
navigation = Navigation(
    "Service tokens",
    "/admin/service-tokens",
    operation="tokens.list",
    icon="M4 6h16v12H4zM8 12h.01M12 12h.01M16 12h.01",
)


@router.get("", dependencies=[may("tokens.list")])
async def show(request: Request, session: SignedIn, context: Reading) -> Response:
    return page(
        request,
        "service_tokens.html",
        session,
        here="service_tokens",
        tokens=await service_tokens.list_tokens(context),
        scopes=await service_tokens.list_scopes(context),
        base=f"{request.state.base_url}/admin/api",
        now=datetime.now(UTC),
    )


@router.post("", dependencies=[may("tokens.create")])
async def create(request: Request, session: SignedIn, context: Writing) -> Response:
    fields = service_tokens.ServiceTokenFields
    new = fields(**fields_of(await request.form(), fields))
    token = await service_tokens.create_token(context, new)
    return page(request, "service_token_shown.html", session, token=token)


@router.post("/{token}/revoke", dependencies=[may("tokens.revoke")])
async def revoke(context: Writing, token: str) -> Response:
    await service_tokens.revoke_token(context, token)
    return reload()
