"""API Access: keys with their rights, shown once with the configuration of each client."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, NamedTuple

from fastapi import APIRouter, Form, Request, Response
from pydantic import AwareDatetime

from pvemcp_bridge.bundle import EXTENSION
from pvemcp_server.access.keys import KeyChanges, KeyFields
from pvemcp_server.access.model import Effect, Toolset
from pvemcp_server.admin import clusters, keys, overview
from pvemcp_server.admin.client_setup import CLIENTS, Connection
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.web import bridge_files
from pvemcp_server.web.pages.forms import fields_of
from pvemcp_server.web.session import Reading, SignedIn, Writing, may
from pvemcp_server.web.templates import Navigation, endpoint_of, page, reload, visible

router = APIRouter(prefix="/keys")
navigation = Navigation(
    "API Access",
    "/admin/keys",
    operation="keys.list",
    icon="M8 16a4 4 0 1 1 0-8 4 4 0 0 1 0 8zM12 12h9v4M17 12v3",
)


class Kind(NamedTuple):
    """Rights of a key with the same effect (read, write, destroy) and reach."""

    effect: str
    reach: str
    tools: list[str]


WAIT_FOR_CALL: Final = timedelta(minutes=10)
STOP_POLLING: Final = 286  # htmx's own status: swap the answer, and stop


@router.get("", dependencies=[may("keys.list")])
async def show(request: Request, session: SignedIn, context: Reading) -> Response:
    known = await overview.list_notices(context) if visible(session, "notices.list") else []
    notices = [each for each in known if each.kind == "key-refused"]
    return page(
        request,
        "keys.html",
        session,
        here="keys",
        keys=await keys.list_keys(context),
        enabled=(await context.services.settings.current()).enabled,
        notices=notices,
        freezes=await clusters.list_freezes(context),
        endpoint=endpoint_of(request),
        now=datetime.now(UTC),
        latest=await keys.latest_expiry(context),
        **await _choices(context),
    )


@router.post("", dependencies=[may("keys.create")])
async def generate(request: Request, session: SignedIn, context: Writing) -> Response:
    """Create a key; a field that is left empty has its default."""
    fields = KeyFields(**fields_of(await request.form(), KeyFields))
    return await _show_secret(request, session, context, await keys.create_key(context, fields))


@router.post("/{key}/change", dependencies=[may("keys.change")])
async def change(request: Request, context: Writing, key: str) -> Response:
    """Change a key; a field that is left empty gets its default back.

    The form holds only the day of an expiry: while that is the same, the time stays unchanged.
    """
    fields = KeyFields(**fields_of(await request.form(), KeyFields))
    expires = (await keys.get_key(context, key)).expires
    if expires and fields.expires and expires.date() == fields.expires.date():
        fields.expires = expires
    await keys.change_key(context, key, KeyChanges(**fields.model_dump()))
    return reload()


@router.get("/{key}/edit", dependencies=[may("keys.change")])
async def edit(request: Request, session: SignedIn, context: Reading, key: str) -> Response:
    record = await context.services.access.keys.get(key)
    return page(
        request,
        "key_edit.html",
        session,
        key=await keys.get_key(context, key),
        latest=await keys.latest_expiry(context, record),
        **await _choices(context),
    )


@router.post("/{key}/regenerate", dependencies=[may("keys.regenerate")])
async def regenerate(request: Request, session: SignedIn, context: Writing, key: str) -> Response:
    shown = await keys.regenerate_key(context, key)
    return await _show_secret(request, session, context, shown)


@router.post("/{key}/enabled", dependencies=[may("keys.change")])
async def set_enabled(context: Writing, key: str, enabled: Annotated[bool, Form()]) -> Response:
    await keys.change_key(context, key, KeyChanges.model_validate({"enabled": enabled}))
    return reload()


@router.post("/{key}/remove", dependencies=[may("keys.remove")])
async def remove(context: Writing, key: str) -> Response:
    await keys.remove_key(context, key)
    return reload()


@router.get("/{key}/rights", dependencies=[may("keys.rights")])
async def rights(request: Request, session: SignedIn, context: Reading, key: str) -> Response:
    return page(
        request,
        "key_rights.html",
        session,
        key=await keys.get_key(context, key),
        kinds=_kinds(await keys.effective_rights(context, key)),
        budget=await keys.budget(context, key),
    )


@router.get("/{key}/first-call", dependencies=[may("keys.get")])
async def first_call(
    request: Request, session: SignedIn, context: Reading, key: str, since: AwareDatetime
) -> Response:
    """Answer 204 until the key was used since that time; with 286, htmx stops asking."""
    known = await keys.get_key(context, key)
    used = known.last_used is not None and known.last_used >= since
    if not used and datetime.now(UTC) - since < WAIT_FOR_CALL:
        return Response(status_code=204)
    return page(
        request,
        "key_first_call.html",
        session,
        used=used,
        address=known.last_address,
        status=STOP_POLLING,
    )


async def _show_secret(
    request: Request, session: SignedIn, context: AdminContext, key: keys.ShownKey
) -> Response:
    file, command = bridge_files.file_and_command(request, context.services.config)
    return page(
        request,
        "key_shown.html",
        session,
        key=key,
        connection=Connection(endpoint_of(request), key.secret, command=command),
        clients=CLIENTS.values(),
        since=datetime.now(UTC).isoformat(),
        enabled=(await context.services.settings.current()).enabled,
        bridge_file=file,
        extension=EXTENSION,
    )


def _kinds(rights: list[keys.ToolRight]) -> list[Kind]:
    """Group rights with the same effect and reach, what reads first."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for right in rights:
        groups[right.effect, _reach(right.clusters)].append(right.tool)
    kinds = [Kind(effect, reach, names) for (effect, reach), names in groups.items()]
    return sorted(kinds, key=lambda kind: list(Effect).index(Effect(kind.effect)))


def _reach(clusters: dict[str, dict[str, Any]]) -> str:
    """Return what is reached on the clusters in words: those with the same reach together."""
    names: dict[str, list[str]] = defaultdict(list)
    for name, resources in clusters.items():
        names[keys.resources_text(resources)].append(name)
    parts = (f"{what} on {', '.join(where)}" for what, where in names.items())
    return "; ".join(parts) or "on no cluster"


async def _choices(context: AdminContext) -> dict[str, Any]:
    return {**(await keys.key_choices(context)).model_dump(), "toolsets": list(Toolset)}
