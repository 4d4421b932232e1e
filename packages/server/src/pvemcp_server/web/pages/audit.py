"""Audit: every call and change, as it happens, filtered, exported, verified."""

from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response

from pvemcp_server.errors import UnknownName
from pvemcp_server.web.administration import Acting, audit, clusters, keys
from pvemcp_server.web.session import Reading, RowNumber, SignedIn, Writing
from pvemcp_server.web.templates import page

router = APIRouter(prefix="/audit")
PAGE = 50


class Asked(audit.Search):
    """A form sends every field, the empty ones too."""

    @classmethod
    def of(cls, request: Request) -> "Asked":
        given = {name: value for name, value in request.query_params.items() if value}
        return cls.model_validate(given)

    @property
    def address_line(self) -> str:
        """The search as the query of a URL."""
        return urlencode(self.model_dump(mode="json", exclude_none=True))


@router.get("")
async def show(request: Request, session: SignedIn, acting: Reading) -> Response:
    asked = Asked.of(request)
    return page(
        request,
        "audit.html",
        session,
        here="audit",
        asked=asked,
        **await _entries(acting, asked),
        keys=await keys.list_keys(acting),
        clusters=[one.name for one in await clusters.list_clusters(acting)],
    )


@router.get("/entries")
async def entries(request: Request, session: SignedIn, acting: Reading) -> Response:
    """The table alone, asked for again and again while the page is live."""
    asked = Asked.of(request)
    return page(
        request, "audit_entries.html", session, asked=asked, **await _entries(acting, asked)
    )


@router.get("/entries/{seq}")
async def entry(request: Request, session: SignedIn, acting: Reading, seq: RowNumber) -> Response:
    found = await audit.find(acting, audit.Search(before=seq + 1), 1)
    if not found:
        raise UnknownName("entry", seq, [])
    return page(request, "audit_entry.html", session, entry=found[0])


@router.post("/verify")
async def verify(request: Request, session: SignedIn, acting: Writing) -> Response:
    return page(request, "audit_verified.html", session, verified=await audit.verify(acting))


async def _entries(acting: Acting, asked: Asked) -> dict[str, Any]:
    found = await audit.find(acting, asked, PAGE + 1)
    shown = found[:PAGE]
    older = asked.model_copy(update={"before": shown[-1].seq}) if len(found) > PAGE else None
    return {"entries": shown, "older": older.address_line if older else ""}
