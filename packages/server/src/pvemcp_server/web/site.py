"""The admin site: its application is loaded and built for the first request.

A server is started more often than its pages are opened: without them it starts in a sixth less
time. Loading takes some tenths of a second, in a thread beside the calls.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from pvemcp_server.pipeline.pipeline import Pipeline
from pvemcp_server.services import Services

if TYPE_CHECKING:
    from pvemcp_server.web.live import LiveOverview


@dataclass(eq=False)
class Loaded:
    """An application that is loaded once, by the first request."""

    load: Callable[[], FastAPI]
    _application: FastAPI | None = None
    _loading: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        application = self._application or await self._loaded()
        await application(scope, receive, send)

    async def _loaded(self) -> FastAPI:
        async with self._loading:  # requests may come together
            if self._application is None:
                self._application = await asyncio.to_thread(self.load)
            return self._application


@dataclass(eq=False)
class AdminSite:
    """The site for the services of one process; `pipeline` runs what administrators try as a key.

    The application beneath has no state of its own: each request finds the services in its scope.
    """

    services: Services
    pipeline: Pipeline
    closing: asyncio.Event = field(default_factory=asyncio.Event)  # set when the server stops

    def __post_init__(self) -> None:
        self._serve = Loaded(lambda: self.application)

    @property
    def application(self) -> FastAPI:
        """The application of pages and REST API."""
        from pvemcp_server.web.application import application

        return application(has_issuer=bool(self.services.config.oidc_issuer))

    @cached_property
    def live(self) -> "LiveOverview":
        """The overview that pages show live."""
        from pvemcp_server.web.live import LiveOverview

        return LiveOverview(closing=self.closing)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request with the services of this site."""
        scope.setdefault("state", {})["site"] = self
        await self._serve(scope, receive, send)
