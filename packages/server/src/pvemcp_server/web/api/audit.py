"""The audit over REST."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from pvemcp_server.admin import audit
from pvemcp_server.audit import Entry
from pvemcp_server.web.session import Reading, Writing

router = APIRouter(tags=["Audit"], prefix="/audit")
MEDIA = {"csv": "text/csv; charset=utf-8", "json": "application/x-ndjson"}


class Listing(audit.Search):
    """A page of the audit."""

    limit: Annotated[int, Query(ge=1, le=1000, description="Entries on the page")] = 50


@router.get("")
async def find_entries(context: Reading, asked: Annotated[Listing, Query()]) -> list[Entry]:
    """Entries, newest first; the next page is before the last one's seq."""
    search = audit.Search(**asked.model_dump(exclude={"limit"}))
    return await audit.find(context, search, asked.limit)


@router.post("/verify")
async def verify(context: Writing) -> audit.Verified:
    """Check the chain: every edit, deletion and reordering is found."""
    return await audit.verify(context)


@router.get(
    "/export.{kind}",
    response_class=Response,
    responses={200: {"content": {"text/csv": {}, "application/x-ndjson": {}}}},
)
async def export(
    context: Reading, kind: Literal["csv", "json"], search: Annotated[audit.Search, Query()]
) -> Response:
    """All entries that match, as CSV or as one JSON object a line."""
    name = f'attachment; filename="pvemcp-audit.{"csv" if kind == "csv" else "jsonl"}"'
    pieces = await audit.export(context, search, kind)
    return StreamingResponse(pieces, media_type=MEDIA[kind], headers={"Content-Disposition": name})
