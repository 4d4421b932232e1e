"""Settings: what is declared once in `pvemcp_server.settings`, with the values of now."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from pvemcp_server.settings import declared
from pvemcp_server.web.administration.acting import Acting


class Setting(BaseModel):
    """A setting with its value; `type` is its JSON schema: type, choices, limits."""

    name: str
    title: str
    description: str
    group: str
    default: Any
    value: Any
    type: dict[str, Any]


async def list_settings(acting: Acting) -> list[Setting]:
    values = await acting.services.settings.current()
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
        for one in declared()
    ]


async def change_settings(acting: Acting, values: Mapping[str, Any]) -> list[Setting]:
    """All or none; takes effect within a second on every process."""
    await acting.services.settings.change(values, by=acting.by)
    await acting.changed("settings.change", **values)
    return await list_settings(acting)
