"""The export of the audit over REST: a stream of lines, unlike every other answer."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from pvemcp_server.admin import audit
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.operation import operations
from pvemcp_server.web.api.answers import requirements
from pvemcp_server.web.session import permitted

router = APIRouter()
EXPORT = operations()["audit.export"]
MEDIA = {"csv": "text/csv; charset=utf-8", "json": "application/x-ndjson"}


@router.get(
    "/audit/export.{kind}",
    response_class=Response,
    openapi_extra=requirements(EXPORT),
    responses={200: {"content": {"text/csv": {}, "application/x-ndjson": {}}}},
)
async def export(
    context: Annotated[AdminContext, permitted(EXPORT)],
    kind: Literal["csv", "json"],
    search: Annotated[audit.Search, Query()],
) -> Response:
    """Export all entries that match, as CSV or as one JSON object a line."""
    name = f'attachment; filename="pvemcp-audit.{"csv" if kind == "csv" else "jsonl"}"'
    lines = await audit.export(context, search, kind)
    return StreamingResponse(lines, media_type=MEDIA[kind], headers={"Content-Disposition": name})
