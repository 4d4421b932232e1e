"""Settings: what is declared once in `pvemcp_server.settings`, with the values of now."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from pvemcp_server.admin.context import AdminContext
from pvemcp_server.settings import declared_settings


class Setting(BaseModel):
    """A setting with its value; `type` is its JSON schema: type, choices, limits."""

    name: str
    title: str
    description: str
    group: str
    default: Any
    value: Any
    type: dict[str, Any]


async def list_settings(context: AdminContext) -> list[Setting]:
    values = await context.services.settings.current()
    return [
        Setting(
            name=one.name,
            title=one.title,
            description=one.description,
            group=one.group,
            default=one.default,
            value=getattr(values, one.name),
            type=dict(one.schema),
        )
        for one in declared_settings()
    ]


async def change_settings(context: AdminContext, values: Mapping[str, Any]) -> list[Setting]:
    """All or none; takes effect within a second on every process."""
    await context.services.settings.change(values, by=context.by)
    await context.changed("settings.change", **values)
    return await list_settings(context)
