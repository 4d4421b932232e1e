"""Page Administrators: the accounts that may sign in."""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response

from pvemcp_server.admin import admins
from pvemcp_server.store.records import AdminRole
from pvemcp_server.web.session import Reading, SignedIn, Writing, may
from pvemcp_server.web.templates import Navigation, page, reload

router = APIRouter(prefix="/administrators")
navigation = Navigation(
    "Administrators",
    "/admin/administrators",
    operation="admins.list",
    icon="M12 4a4 4 0 1 1 0 8 4 4 0 0 1 0-8zM4 21c0-8 16-8 16 0",
)
Text = Annotated[str, Form()]


@router.get("", dependencies=[may("admins.list")])
async def show(request: Request, session: SignedIn, context: Reading) -> Response:
    return page(
        request,
        "administrators.html",
        session,
        here="admins",
        admins=await admins.list_admins(context),
        roles=list(AdminRole),
    )


@router.post("", dependencies=[may("admins.add")])
async def add(
    request: Request,
    session: SignedIn,
    context: Writing,
    name: Text,
    role: Annotated[AdminRole, Form()] = AdminRole.OWNER,
) -> Response:
    new = await admins.add_admin(context, admins.AdminFields(name=name, role=role))
    return page(request, "administrator_shown.html", session, admin=new)


@router.post("/{name}/reset", dependencies=[may("admins.reset_password")])
async def reset(request: Request, session: SignedIn, context: Writing, name: str) -> Response:
    shown = await admins.reset_password(context, name)
    return page(request, "administrator_shown.html", session, admin=shown)


@router.post("/{name}/enabled", dependencies=[may("admins.enable")])
async def set_enabled(context: Writing, name: str, enabled: Annotated[bool, Form()]) -> Response:
    await admins.set_enabled(context, name, enabled=enabled)
    return reload()


@router.post("/{name}/role", dependencies=[may("admins.set_role")])
async def set_role(context: Writing, name: str, role: Annotated[AdminRole, Form()]) -> Response:
    await admins.set_role(context, name, role)
    return reload()


@router.post("/{name}/remove-second-factors", dependencies=[may("admins.remove_second_factors")])
async def remove_second_factors(context: Writing, name: str) -> Response:
    await admins.remove_second_factors(context, name)
    return reload()


@router.post("/{name}/remove", dependencies=[may("admins.remove")])
async def remove(context: Writing, name: str) -> Response:
    await admins.remove_admin(context, name)
    return reload()
