"""The pages on which users sign in and consent, loaded for their first request."""

from dataclasses import dataclass, field

from fastapi import FastAPI
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from pvemcp_server.oauth.addresses import PAGES
from pvemcp_server.services import Services
from pvemcp_server.web.site import Loaded


@dataclass(frozen=True, eq=False)
class PeopleSite:
    """The pages for the services of one process; the application has no state of its own."""

    services: Services
    _serve: Loaded = field(init=False, default_factory=lambda: Loaded(_load))

    def routes(self) -> list[Route]:
        """Return a route for each page, all served by this application."""
        return [Route(path, self) for path in sorted(PAGES)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request with the services of this site."""
        scope.setdefault("state", {})["site"] = self
        await self._serve(scope, receive, send)


def _load() -> FastAPI:
    from pvemcp_server.web.oauth.application import application

    return application()
