"""Settings: declared in `pvemcp_server.settings`, listed here with their current values."""

from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import BaseModel

from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.keys import longer_keys, longer_tokens
from pvemcp_server.admin.operation import Command, Route, Subject
from pvemcp_server.admin.permission import AUDITORS, OWNERS
from pvemcp_server.errors import BadArgument
from pvemcp_server.link_local import check_hosts
from pvemcp_server.settings import declared_settings

subject = Subject("Settings", {"settings": "Show and change settings."})


WEIGHTY_GROUPS: Final = frozenset({"Safety", "Sign-in", "Connections", "Records"})
NO_AUDIENCE: Final = (
    "set it together with external_issuer, or set PVEMCP_PUBLIC_URL: else the Host of a request "
    "would say what its token has to be for."
)


class Setting(BaseModel):
    """A setting with its value; `type` is its JSON schema: type, choices, limits."""

    name: str
    title: str
    description: str
    group: str
    default: Any
    value: Any
    type: dict[str, Any]


async def changes_safety(context: AdminContext, values: dict[str, Any]) -> bool:
    """Return whether a setting protects something, decides who signs in, or keeps the audit."""
    del context  # the decision depends on the names alone
    groups = {setting.name: setting.group for setting in declared_settings()}
    return any(groups.get(name) in WEIGHTY_GROUPS for name in values)


@subject.operation(
    "settings.list",
    Route("GET", "/settings"),
    Command("settings list", columns=("name", "value", "default", "description")),
    may=AUDITORS,
)
async def list_settings(context: AdminContext) -> list[Setting]:
    """List every setting with its value, default and type."""
    values = await context.services.settings.current()
    return [
        Setting(
            name=setting.name,
            title=setting.title,
            description=setting.description,
            group=setting.group,
            default=setting.default,
            value=getattr(values, setting.name),
            type=dict(setting.schema),
        )
        for setting in declared_settings()
    ]


@subject.operation(
    "settings.change",
    Route("PATCH", "/settings"),
    Command("settings set", by_hand=True),
    may=OWNERS,
    needs_recent_sign_in=changes_safety,
)
async def change_settings(context: AdminContext, values: dict[str, Any]) -> list[Setting]:
    """Change settings, all or none; every process follows within a second."""
    settings = context.services.settings
    after = await settings.check(values)
    if "audit_syslog" in values and after.audit_syslog:
        await check_hosts([urlsplit(after.audit_syslog).netloc], argument="audit_syslog")
    if "external_issuer" in values and after.external_issuer:
        await check_hosts([urlsplit(after.external_issuer).netloc], argument="external_issuer")
    has_audience = not after.lacks_audience(context.services.config.public_url)
    if not has_audience and values.keys() & {"external_issuer", "external_audience"}:
        raise BadArgument("external_audience", NO_AUDIENCE)
    if settings.values.local_sign_in and not after.local_sign_in:
        await context.services.access.admins.check_external_sign_in()
    await settings.change(values, by=context.by)
    await context.changed("settings.change", **values)
    if "longest_key_life_days" in values:
        await _note_longer(context, "Keys", await longer_keys(context))
        await _note_longer(context, "Service tokens", await longer_tokens(context))
    return await list_settings(context)


async def _note_longer(context: AdminContext, kind: str, names: list[str]) -> None:
    if names:
        message = f"{kind} that live longer than the setting allows: {', '.join(names)}."
        await context.services.store.notices.record("key-life", kind.casefold(), message)
