"""Tools over REST: what the AI sees, and trying a call."""

from typing import Annotated

from fastapi import APIRouter, Query

from pvemcp_server.admin import tools
from pvemcp_server.web.session import PipelineOf, Reading, Writing

router = APIRouter(tags=["Tools"], prefix="/tools")
AsKey = Annotated[str, Query(description="Id or name of a key; as Administrator when absent")]


@router.get("")
async def list_tools(
    context: Reading, pipeline: PipelineOf, key: AsKey = ""
) -> list[tools.SeenTool]:
    """The tools as tools/list shows them to a key."""
    return await tools.seen_tools(context, pipeline, key)


@router.post("/{name}/call")
async def try_tool(
    context: Writing, pipeline: PipelineOf, name: str, attempt: tools.Attempt
) -> tools.Tried:
    """Call a tool as a key: the same way that a client's call takes, audit included."""
    return await tools.try_tool(context, pipeline, name, attempt)
