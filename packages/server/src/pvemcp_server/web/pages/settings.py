"""Page Settings: one form, derived from the declarations."""

from itertools import groupby
from typing import Any

from fastapi import APIRouter, Request, Response

from pvemcp_server.admin import settings
from pvemcp_server.pipeline.pagination import FORMATS, TABLE
from pvemcp_server.web.pages.forms import number, text_of, words
from pvemcp_server.web.session import Reading, SignedIn, Writing, may
from pvemcp_server.web.templates import Navigation, page

router = APIRouter(prefix="/settings")
navigation = Navigation(
    "Settings",
    "/admin/settings",
    operation="settings.list",
    icon="M5 4v5M5 13v7M12 4v10M12 18v2M19 4v2M19 10v10M3 11h4M10 16h4M17 8h4",
)


@router.get("", dependencies=[may("settings.list")])
async def show(request: Request, session: SignedIn, context: Reading) -> Response:
    declared = await settings.list_settings(context)
    by_group = groupby(declared, lambda setting: setting.group)
    groups = {name: list(members) for name, members in by_group}
    return page(
        request,
        "settings.html",
        session,
        here="settings",
        groups=groups,
        formats=FORMATS,
        tokens=TABLE,
    )


@router.post("", dependencies=[may("settings.change")])
async def change(request: Request, session: SignedIn, context: Writing) -> Response:
    """Change the settings of the form that have other values than before."""
    form = await request.form()
    known = await settings.list_settings(context)
    declared = [setting for setting in known if setting.name in form]
    values = {
        setting.name: _value(text_of(form, setting.name), setting.type) for setting in declared
    }
    before = {setting.name: setting.value for setting in declared}
    changed = {name: value for name, value in values.items() if value != _plain(before[name])}
    if changed:
        await settings.change_settings(context, changed)
    titles = [setting.title for setting in declared if setting.name in changed]
    response = page(request, "settings_saved.html", session, titles=titles)
    response.headers["HX-Trigger"] = "saved"  # what the form holds is not unsaved any more
    return response


def _value(text: str, schema: dict[str, Any]) -> Any:
    """Convert a form's text to the type of its setting."""
    match schema.get("type"):
        case "boolean":
            return text == "true"
        case "integer":
            return number(text)
        case "array":
            return words(text)
        case _:
            return text


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
