"""API keys over REST."""

from fastapi import APIRouter

from pvemcp_server.admin import keys
from pvemcp_server.web.api.answers import CREATED, GONE
from pvemcp_server.web.session import Reading, Writing

router = APIRouter(tags=["API Access"])


@router.get("/keys")
async def list_keys(context: Reading) -> list[keys.Key]:
    """All keys, without their secrets."""
    return await keys.list_keys(context)


@router.post("/keys", status_code=CREATED)
async def create_key(context: Writing, new: keys.KeyFields) -> keys.ShownKey:
    """The secret is in this answer and nowhere else."""
    return await keys.create_key(context, new)


@router.get("/keys/{key}")
async def get_key(context: Reading, key: str) -> keys.Key:
    """A key by its id or name."""
    return await keys.get_key(context, key)


@router.patch("/keys/{key}")
async def change_key(context: Writing, key: str, changes: keys.KeyChanges) -> keys.Key:
    """Change what is given; the rest stays."""
    return await keys.change_key(context, key, changes)


@router.post("/keys/{key}/regenerate")
async def regenerate_key(context: Writing, key: str) -> keys.ShownKey:
    """A new secret; the old one is refused at once."""
    return await keys.regenerate_key(context, key)


@router.delete("/keys/{key}", status_code=GONE)
async def remove_key(context: Writing, key: str) -> None:
    """Withdraw a key; it is refused at once."""
    await keys.remove_key(context, key)


@router.get("/keys/{key}/rights")
async def effective_rights(context: Reading, key: str) -> list[keys.ToolRight]:
    """Every tool the key may call and, per cluster, the resources it reaches."""
    return await keys.effective_rights(context, key)
