"""Settings over REST."""

from typing import Any

from fastapi import APIRouter

from pvemcp_server.admin import settings
from pvemcp_server.web.session import Reading, Writing

router = APIRouter(tags=["Settings"])


@router.get("/settings")
async def list_settings(context: Reading) -> list[settings.Setting]:
    """Every setting with its value, default and type."""
    return await settings.list_settings(context)


@router.patch("/settings")
async def change_settings(context: Writing, values: dict[str, Any]) -> list[settings.Setting]:
    """All or none."""
    return await settings.change_settings(context, values)
