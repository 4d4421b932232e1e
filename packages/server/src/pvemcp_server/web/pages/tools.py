"""Page Tools: the tools/list of a key, and a form to try each tool as that key."""

import json
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse
from pydantic_core import to_json

from pvemcp_server.access.model import Area
from pvemcp_server.admin import clusters, keys, tools
from pvemcp_server.errors import BadArgument
from pvemcp_server.toolkit.schema import description_of
from pvemcp_server.views.catalog import VIEWS
from pvemcp_server.web.pages.forms import arguments_of, read_json, text_of
from pvemcp_server.web.policies import POLICY, VIEW_POLICY
from pvemcp_server.web.session import PipelineOf, Reading, SignedIn, Writing, may
from pvemcp_server.web.templates import Navigation, page

router = APIRouter(prefix="/tools")
navigation = Navigation(
    "Tools", "/admin/tools", operation="tools.list", icon="M8 6l-5 6 5 6M16 6l5 6-5 6"
)
AsKey = Annotated[str, Query()]
ARGUMENT = "argument-"


@router.get("", dependencies=[may("tools.list")])
async def show(
    request: Request, session: SignedIn, context: Reading, pipeline: PipelineOf, key: AsKey = ""
) -> Response:
    visible_tools = await tools.list_tools(context, pipeline, key)
    areas = {area: [tool for tool in visible_tools if tool.area == area] for area in Area}
    return page(
        request,
        "tools.html",
        session,
        here="tools",
        areas={area: area_tools for area, area_tools in areas.items() if area_tools},
        count=len(visible_tools),
        keys=await keys.list_keys(context),
        chosen=key,
    )


@router.get("/{name}", dependencies=[may("tools.list")])
async def form(
    request: Request,
    session: SignedIn,
    context: Reading,
    pipeline: PipelineOf,
    name: str,
    key: AsKey = "",
) -> Response:
    tool = await tools.get_tool(context, pipeline, key, name)
    response = page(
        request,
        "tool_try.html",
        session,
        here="tools",
        tool=tool,
        has_view=bool(pipeline.tools[name].view),
        asks=tools.may_ask(pipeline.tools[name]),
        chosen=key,
        keys=await keys.list_keys(context),
        clusters=[cluster.name for cluster in await clusters.list_clusters(context)],
        prefix=ARGUMENT,
        description_of=description_of,
        input_schema=json.dumps(tool.input_schema, indent=2),
    )
    if pipeline.tools[name].view:
        response.headers["Content-Security-Policy"] = f"{POLICY}; frame-src 'self'"
    return response


@router.get("/{name}/view", dependencies=[may("tools.list")])
async def view(pipeline: PipelineOf, name: str) -> Response:
    """Return the view of a tool, for the sandbox on the page that tries it."""
    tool = pipeline.tools.get(name)
    if tool is None or not tool.view:
        raise HTTPException(404)
    headers = {"Content-Security-Policy": VIEW_POLICY}
    return HTMLResponse(VIEWS[tool.view].html, headers=headers)


@router.post("/{name}/call", dependencies=[may("tools.call")])
async def call(
    request: Request, session: SignedIn, context: Writing, pipeline: PipelineOf, name: str
) -> Response:
    sent = await request.form()
    key = text_of(sent, "key")
    tool = await tools.get_tool(context, pipeline, key, name)
    if call_of_view := text_of(sent, "call"):
        arguments = read_json("call", call_of_view)
        if not isinstance(arguments, dict):
            raise BadArgument("call", "must be an object.")
    else:
        arguments = arguments_of(sent, tool.input_schema, ARGUMENT)
    attempt = tools.Attempt(
        key=key,
        arguments=arguments,
        confirmed=text_of(sent, "confirmed") == "yes",
        question=text_of(sent, "question"),
    )
    tried = await tools.try_tool(context, pipeline, name, attempt)
    as_call = json.dumps(tools.as_tool_call(name, arguments), indent=2)
    texts = [text for text in (tried.data, tried.notes) if text]
    result = {
        "content": [{"type": "text", "text": text} for text in texts],
        "isError": tried.failed,
        **({"structuredContent": tried.values} if tried.values else {}),
    }
    return page(
        request,
        "tool_answer.html",
        session,
        tried=tried,
        tool=tool,
        key=key,
        tool_call=as_call,
        is_of_view=bool(call_of_view),
        arguments=json.dumps(arguments),
        result=to_json(result).decode(),
    )
