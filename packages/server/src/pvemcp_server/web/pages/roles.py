"""Page Roles: an editor of grants by area, with the effect of each tool."""

from collections.abc import Iterable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Form, Query, Request, Response
from starlette.datastructures import FormData

from pvemcp_server.access.model import (
    ANY,
    GUEST_LISTS,
    NAMED_ONLY,
    READS,
    RESOURCE_KINDS,
    Area,
)
from pvemcp_server.admin import clusters, connections, keys, roles
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.resource_names import all_names, names_by_cluster
from pvemcp_server.errors import BadArgument
from pvemcp_server.toolkit.registry import Tool, tools
from pvemcp_server.web.pages.forms import lines, number, text_of, texts_of, words
from pvemcp_server.web.session import Reading, SignedIn, Writing, may
from pvemcp_server.web.templates import Navigation, page, redirect, reload

router = APIRouter(prefix="/roles")
navigation = Navigation(
    "Roles",
    "/admin/roles",
    operation="roles.list",
    icon="M12 3l8 3v6c0 5-3.5 8-8 9-4.5-1-8-4-8-9V6z",
)
Text = Annotated[str, Form()]
MOST_GRANTS: Final = 1_000
MOST_NAMES: Final = 1_000  # of each kind that are suggested
REACH: Final = "-reach"
NEW: Final[dict[str, Any]] = {
    "tools": [READS],
    "clusters": [ANY],
    "resources": {"everything": True},
}


@router.get("", dependencies=[may("roles.list")])
async def show(
    request: Request, session: SignedIn, context: Reading, saved: Annotated[str, Query()] = ""
) -> Response:
    held = [(key.name, key.role) for key in await keys.list_keys(context)]
    held += [(each.name, each.role) for each in await connections.known_connections(context)]
    known = await roles.list_roles(context)
    holders = {each.name: [name for name, role in held if role == each.name] for each in known}
    return page(
        request,
        "roles.html",
        session,
        here="roles",
        roles=known,
        holders=holders,
        guest_lists=GUEST_LISTS,
        summaries={each.name: roles.summary(each.grants) for each in known},
        saved=saved if saved in holders else "",
    )


@router.get("/names", dependencies=[may("roles.check")])
async def names(request: Request, session: SignedIn, context: Reading) -> Response:
    """Render the names that a grant's resources may have, after the form: clusters may be slow."""
    known = all_names((await names_by_cluster(context)).values())
    suggested = {kind: sorted(each)[:MOST_NAMES] for kind, each in known.items()}
    return page(request, "role_names.html", session, suggested=suggested)


@router.get("/{name}/warnings", dependencies=[may("roles.check")])
async def saved_warnings(
    request: Request, session: SignedIn, context: Reading, name: str
) -> Response:
    warnings = await roles.check_role(context, name)
    return page(request, "role_warnings.html", session, warnings=warnings)


@router.post("/warnings", dependencies=[may("roles.check")])
async def draft_warnings(request: Request, session: SignedIn, context: Writing) -> Response:
    """Render the warnings about the form as it stands, which is not saved.

    A form that cannot be read has none yet: an error would move the focus away from what is typed.
    """
    form = await request.form()
    try:
        grants = list(_grants(form))
    except BadArgument:  # which saving reports beside its field
        grants = []
    warnings = await roles.draft_warnings(context, grants)
    return page(request, "role_warnings.html", session, warnings=warnings)


@router.get("/new", dependencies=[may("roles.create")])
async def new(
    request: Request,
    session: SignedIn,
    context: Reading,
    like: Annotated[str, Query()] = "",
    template: Annotated[str, Query()] = "",
) -> Response:
    """Render the form for a new role: empty, like another one, or from a template."""
    begun = roles.TEMPLATES.get(template)
    grants = (await roles.get_role(context, like)).grants if like else [NEW]
    known = {
        "name": "",
        "description": begun.description if begun else "",
        "grants": begun.grants if begun else grants,
    }
    return page(
        request,
        "role_edit.html",
        session,
        here="roles",
        role=known,
        templates=roles.TEMPLATES,
        begun=template if begun else "",
        **await _choices(context),
    )


@router.get("/grant", dependencies=[may("roles.create")])
async def grant(
    request: Request,
    session: SignedIn,
    context: Reading,
    index: Annotated[int, Query(ge=0, lt=MOST_GRANTS)],
) -> Response:
    """Render one more grant for the form."""
    return page(
        request, "role_grant.html", session, grant=NEW, index=index, **await _choices(context)
    )


@router.get("/{name}/edit", dependencies=[may("roles.change")])
async def edit(request: Request, session: SignedIn, context: Reading, name: str) -> Response:
    role = await roles.get_role(context, name)
    return page(
        request,
        "role_edit.html",
        session,
        here="roles",
        role=role.model_dump(),
        **await _choices(context),
    )


@router.post("", dependencies=[may("roles.create")])
async def save(request: Request, context: Writing, name: Text, was: Text = "") -> Response:
    """Create a role, or change the one named `was`."""
    form = await request.form()
    fields = roles.RoleFields(
        name=name, description=text_of(form, "description"), grants=list(_grants(form))
    )
    if was:
        await roles.change_role(context, was, roles.RoleChanges(**fields.model_dump()))
    else:
        await roles.create_role(context, fields)
    return redirect("/admin/roles?saved=", name)


@router.post("/{name}/remove", dependencies=[may("roles.remove")])
async def remove(context: Writing, name: str) -> Response:
    await roles.remove_role(context, name)
    return reload()


def _grants(form: FormData) -> Iterable[dict[str, Any]]:
    """Yield the grants in the order of the form."""
    for prefix in (f"{name.removesuffix(REACH)}-" for name in form if name.endswith(REACH)):
        yield {
            "tools": texts_of(form, f"{prefix}tool"),
            "clusters": texts_of(form, f"{prefix}cluster") or [ANY],
            "resources": _resources(form, prefix),
            **{
                kind: lines(text_of(form, f"{prefix}{kind}"))
                for kind in GUEST_LISTS
                if text_of(form, f"{prefix}{kind}")
            },
        }


def _resources(form: FormData, prefix: str) -> dict[str, Any]:
    if text_of(form, f"{prefix}reach") == "everything":
        return {"everything": True}
    sets: dict[str, Any] = {
        kind: words(text_of(form, f"{prefix}{kind}")) for kind in RESOURCE_KINDS
    }
    sets["vmids"] = [number(vmid) for vmid in sets["vmids"]]
    if not all(isinstance(vmid, int) for vmid in sets["vmids"]):
        raise BadArgument(f"{prefix}vmids", "numbers, separated by spaces.")
    return {kind: names for kind, names in sets.items() if names}


async def _choices(context: AdminContext) -> dict[str, Any]:
    all_tools = tools().values()
    areas: dict[Area, list[Tool]] = {
        area: [tool for tool in all_tools if tool.area is area] for area in Area
    }
    return {
        "areas": {area: area_tools for area, area_tools in areas.items() if area_tools},
        "clusters": [cluster.name for cluster in await clusters.list_clusters(context)],
        "kinds": RESOURCE_KINDS,
        "guest_lists": GUEST_LISTS,
        "named_only": NAMED_ONLY,
        "wholes": {READS: "Everything that only reads", ANY: "Every tool, destructive ones too"},
    }
