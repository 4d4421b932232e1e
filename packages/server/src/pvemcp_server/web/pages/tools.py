"""Page Tools: the tools/list of a key, and a form to try each tool as that key."""

import json
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from pvemcp_server.access.model import Area
from pvemcp_server.admin import clusters, keys, tools
from pvemcp_server.toolkit.schema import description_of
from pvemcp_server.web.pages.forms import arguments_of, text_of
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
    return page(
        request,
        "tool_try.html",
        session,
        here="tools",
        tool=tool,
        asks=tools.may_ask(pipeline.tools[name]),
        chosen=key,
        keys=await keys.list_keys(context),
        clusters=[cluster.name for cluster in await clusters.list_clusters(context)],
        prefix=ARGUMENT,
        description_of=description_of,
        input_schema=json.dumps(tool.input_schema, indent=2),
    )


@router.post("/{name}/call", dependencies=[may("tools.call")])
async def call(
    request: Request, session: SignedIn, context: Writing, pipeline: PipelineOf, name: str
) -> Response:
    sent = await request.form()
    key = text_of(sent, "key")
    tool = await tools.get_tool(context, pipeline, key, name)
    arguments = arguments_of(sent, tool.input_schema, ARGUMENT)
    attempt = tools.Attempt(
        key=key,
        arguments=arguments,
        confirmed=text_of(sent, "confirmed") == "yes",
        question=text_of(sent, "question"),
    )
    tried = await tools.try_tool(context, pipeline, name, attempt)
    as_call = json.dumps(tools.as_tool_call(name, arguments), indent=2)
    return page(request, "tool_answer.html", session, tried=tried, tool_call=as_call)
