"""API Access: keys, shown once, with all that a client needs to connect."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request, Response

from pvemcp_server.admin import AdminContext, clusters, keys, overview, roles
from pvemcp_server.admin.client_setup import CLIENTS, Connection, endpoint_url
from pvemcp_server.errors import BadArgument
from pvemcp_server.web.pages.forms import words
from pvemcp_server.web.session import Reading, SignedIn, Writing
from pvemcp_server.web.templates import page, reload

router = APIRouter(prefix="/keys")
Text = Annotated[str, Form()]


def _fields(
    name: Text,
    role: Text,
    cluster: Annotated[list[str], Form()] = [],  # noqa: B006 - FastAPI copies it
    toolset: Text = "",
    expires: Text = "",
    allow_from: Text = "",
    output_format: Text = "",
) -> keys.KeyFields:
    """A form's texts as a key's fields: what is left empty has its default."""
    return keys.KeyFields.model_validate(
        {
            "name": name,
            "role": role,
            "clusters": cluster or ["*"],
            "toolset": words(toolset) or ["*"],
            "expires": _end_of(expires),
            "allow_from": words(allow_from),
            "output_format": output_format or None,
        }
    )


def _end_of(day: str) -> datetime | None:
    """The last second of the day, UTC."""
    if not day:
        return None
    try:
        return datetime.fromisoformat(f"{day}T23:59:59+00:00")
    except ValueError:
        raise BadArgument("expires", "a day as YYYY-MM-DD.") from None


Fields = Annotated[keys.KeyFields, Depends(_fields)]


@router.get("")
async def show(request: Request, session: SignedIn, context: Reading) -> Response:
    told = [one for one in await overview.notices(context) if one.kind == "key-refused"]
    return page(
        request,
        "keys.html",
        session,
        here="keys",
        keys=await keys.list_keys(context),
        enabled=(await context.services.settings.current()).enabled,
        notices=told,
        endpoint=endpoint_url(context.services.config),
        now=datetime.now(UTC),
        **await _choices(context),
    )


@router.post("")
async def generate(
    request: Request, session: SignedIn, context: Writing, fields: Fields
) -> Response:
    return _shown(request, session, context, await keys.create_key(context, fields))


@router.post("/{key}/change")
async def change(context: Writing, key: str, fields: Fields) -> Response:
    held = (await keys.get_key(context, key)).expires
    if held and fields.expires and held.date() == fields.expires.date():
        fields.expires = held  # the form knows days only: the same day is no change
    await keys.change_key(context, key, keys.KeyChanges(**fields.model_dump()))
    return reload()


@router.get("/{key}/edit")
async def edit(request: Request, session: SignedIn, context: Reading, key: str) -> Response:
    found = await keys.get_key(context, key)
    return page(request, "key_edit.html", session, key=found, **await _choices(context))


@router.post("/{key}/regenerate")
async def regenerate(request: Request, session: SignedIn, context: Writing, key: str) -> Response:
    return _shown(request, session, context, await keys.regenerate_key(context, key))


@router.post("/{key}/enabled")
async def set_enabled(context: Writing, key: str, enabled: Annotated[bool, Form()]) -> Response:
    await keys.change_key(context, key, keys.KeyChanges(enabled=enabled))
    return reload()


@router.post("/{key}/remove")
async def remove(context: Writing, key: str) -> Response:
    await keys.remove_key(context, key)
    return reload()


@router.get("/{key}/rights")
async def rights(request: Request, session: SignedIn, context: Reading, key: str) -> Response:
    return page(
        request,
        "key_rights.html",
        session,
        key=await keys.get_key(context, key),
        rights=await keys.effective_rights(context, key),
    )


def _shown(
    request: Request, session: SignedIn, context: AdminContext, key: keys.ShownKey
) -> Response:
    connection = Connection(endpoint_url(context.services.config), key.secret)
    return page(
        request,
        "key_shown.html",
        session,
        key=key,
        connection=connection,
        clients=CLIENTS.values(),
    )


async def _choices(context: AdminContext) -> dict[str, Any]:
    return {
        "roles": [one.name for one in await roles.list_roles(context)],
        "clusters": [one.name for one in await clusters.list_clusters(context)],
    }
