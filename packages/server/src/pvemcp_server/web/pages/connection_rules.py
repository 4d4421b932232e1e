"""Page Connection rules: roles that users may choose when they connect."""

from fastapi import APIRouter, Request, Response

from pvemcp_server.admin import clusters, connection_rules, keys
from pvemcp_server.store.records import AdminRole, PersonKind
from pvemcp_server.web.pages.forms import fields_of
from pvemcp_server.web.session import Reading, SignedIn, Writing, may
from pvemcp_server.web.templates import Navigation, page, reload

router = APIRouter(prefix="/connection-rules")
navigation = Navigation(
    "Connection rules",
    "/admin/connection-rules",
    operation="connection_rules.list",
    icon="M4 7h10M4 12h7M4 17h4M15 15l2 2 4-5",
)


@router.get("", dependencies=[may("connection_rules.list")])
async def show(request: Request, session: SignedIn, context: Reading) -> Response:
    return page(
        request,
        "connection_rules.html",
        session,
        here="connection_rules",
        rules=await connection_rules.list_rules(context),
        kinds=list(PersonKind),
        admin_roles=list(AdminRole),
        roles=(await keys.key_choices(context)).roles,
        clusters=[each.name for each in await clusters.list_clusters(context)],
        settings=await context.services.settings.current(),
    )


@router.post("", dependencies=[may("connection_rules.add")])
async def add(request: Request, session: SignedIn, context: Writing) -> Response:
    fields = connection_rules.RuleFields
    new = fields(**fields_of(await request.form(), fields))
    added = await connection_rules.add_rule(context, new)
    if not added.warnings:
        return reload()
    return page(request, "connection_rule_added.html", session, added=added)


@router.post("/{rule}/remove", dependencies=[may("connection_rules.remove")])
async def remove(context: Writing, rule: connection_rules.RuleId) -> Response:
    await connection_rules.remove_rule(context, rule)
    return reload()
