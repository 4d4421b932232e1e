"""The user's part, for tests of clients: an authorization endpoint that consents at once.

What the pages do for a user is tested with them; here it is enough that a client gets its code.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from pvemcp_server.oauth.addresses import AUTHORIZE
from pvemcp_server.oauth.redirects import matches
from pvemcp_server.oauth.scopes import scopes_in
from pvemcp_server.store.records import ConnectionRecord
from pvemcp_server.web.oauth.endpoints import addresses_of

from .connected import connect


@dataclass
class Consent:
    """The endpoint: what clients asked for, and the connection that they got."""

    served: object
    asked: list[dict[str, str]] = field(default_factory=list)
    forged_issuer: str = ""

    async def __call__(self, request: Request) -> Response:
        query = dict(request.query_params)
        self.asked.append(query)
        oauth = self.served.app.endpoint.services.oauth
        client = await oauth.clients.get(query["client_id"])
        if not matches(client, query["redirect_uri"]) or query["code_challenge_method"] != "S256":
            return PlainTextResponse("refused", 400)
        addresses = addresses_of(request)
        connection = await self.connection(client.id, scopes_in(query.get("scope", "")))
        code = await oauth.tokens.issue_code(
            connection,
            redirect_uri=query["redirect_uri"],
            challenge=query["code_challenge"],
            scopes=connection.scopes,
            resource=addresses.resource_of(query.get("resource")),
        )
        issuer = self.forged_issuer or addresses.issuer
        answer = {"code": code, "state": query.get("state", ""), "iss": issuer}
        return RedirectResponse(f"{query['redirect_uri']}?{urlencode(answer)}", 303)

    async def connection(self, client_id: str, scopes: list[str]) -> ConnectionRecord:
        """Connect the client: with pve:read at first, then with these scopes."""
        store, scopes = self.served.state.store, [str(scope) for scope in scopes]
        known = len(await store.connections.all(client_id=client_id))
        scopes = scopes if known else ["pve:read"]
        name = f"alice via {client_id[:40]} {known}"
        return await connect(store, client_id=client_id, scopes=tuple(scopes), name=name)


@contextmanager
def consenting(served: object) -> Iterator[Consent]:
    """Serve an authorization endpoint that consents, in place of the pages."""
    consent = Consent(served)
    routes = served.app.fastapi.router.routes
    routes.insert(0, Route(AUTHORIZE, consent.__call__))
    yield consent
    del routes[0]
