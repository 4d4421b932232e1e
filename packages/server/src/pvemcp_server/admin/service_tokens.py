"""Service tokens of programs for the admin REST API: list, create and revoke them."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field

from pvemcp_server.access.fields import Argument, Fields, Option
from pvemcp_server.access.keys import Expiry
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.keys import latest_expiry
from pvemcp_server.admin.operation import Command, Route, Subject, operations, scopes
from pvemcp_server.admin.permission import AUDITORS, OWNERS
from pvemcp_server.errors import BadArgument, NotPermitted, UnknownName
from pvemcp_server.store.records import ServiceTokenRecord

subject = Subject(
    "Service tokens",
    {"tokens": "Service tokens of programs for the admin REST API."},
    for_tokens=False,
)
TokenName = Annotated[str, Field(description="Id or name of the service token")]


def _known(names: list[str]) -> list[str]:
    """Return the scopes, sorted; raise BadArgument for none and for an unknown one."""
    if not names:
        raise BadArgument("scopes", "must not be empty.")
    for name in names:
        if name not in scopes():
            raise BadArgument("scopes", str(UnknownName("scope", name, scopes())))
    return sorted(set(names))


class ServiceTokenFields(Fields):
    """A new service token."""

    name: Annotated[str, Argument()] = Field(description="What the token is for")
    scopes: Annotated[list[str], AfterValidator(_known), Option("--scope")] = Field(
        description="What it may do, as keys:read or keys:write; to write includes to read"
    )
    expires: Expiry | None = Field(
        default=None,
        description="When it expires, as 2027-01-31T00:00:00+00:00: after 90 days when absent, "
        "and after 366 at most, or what the setting longest_key_life_days allows",
    )


class ServiceToken(BaseModel):
    """A service token without its secret."""

    id: str
    name: str
    scopes: list[str]
    expires: datetime
    created: datetime
    created_by: str
    last_used: datetime | None
    last_address: str | None


class ShownServiceToken(ServiceToken):
    """A service token with its secret, which is available this one time only."""

    secret: str


class Scope(BaseModel):
    """A scope of service tokens, and the operations that it permits by itself."""

    name: str
    operations: list[str]


@subject.operation(
    "tokens.scopes",
    Route("GET", "/token-scopes"),
    Command("tokens scopes", columns=("name", "operations")),
    may=AUDITORS,
)
async def list_scopes(context: AdminContext) -> list[Scope]:
    """List the scopes that a service token may have."""
    del context  # scopes are declared with the operations
    return [
        Scope(
            name=scope,
            operations=[n for n, each in operations().items() if each.permission.scope == scope],
        )
        for scope in scopes()
    ]


@subject.operation(
    "tokens.list",
    Route("GET", "/tokens"),
    Command("tokens list", columns=("id", "name", "scopes", "expires", "last_used")),
    may=AUDITORS,
)
async def list_tokens(context: AdminContext) -> list[ServiceToken]:
    """List the service tokens by name, without their secrets."""
    tokens = [_token(record) for record in await context.services.access.service_tokens.all()]
    return sorted(tokens, key=lambda token: token.name.casefold())


@subject.operation(
    "tokens.create",
    Route("POST", "/tokens", created=True),
    Command("tokens create", text="Service token {name} ({id}), shown once:\n\n  {secret}"),
    may=OWNERS,
    needs_recent_sign_in=True,
)
async def create_token(context: AdminContext, new: ServiceTokenFields) -> ShownServiceToken:
    """Create a service token; its secret is in this answer and nowhere else.

    It ends with the account of the administrator who creates it; one of the command line has none.
    """
    access = context.services.access
    admin = await access.sessions.administrator(context.session_id)
    if context.session_id and admin is None:
        # without an administrator, the token would outlast the account
        raise NotPermitted("Your session has ended; sign in again to create a token.")
    record, secret = await access.service_tokens.create(
        **new.model_dump(),
        latest=await latest_expiry(context),
        by=context.by,
        admin=admin,
    )
    await context.changed(
        "tokens.create",
        token=record.id,
        name=record.name,
        scopes=record.scopes,
        expires=record.expires,
    )
    return ShownServiceToken(secret=secret, **_token(record).model_dump())


@subject.operation(
    "tokens.revoke",
    Route("DELETE", "/tokens/{token}"),
    Command("tokens revoke", text="Revoked {token}.", done="revoked"),
    may=OWNERS,
)
async def revoke_token(context: AdminContext, token: TokenName) -> None:
    """Revoke a service token; it is refused at once."""
    record = await context.services.access.service_tokens.revoke(token)
    await context.changed("tokens.revoke", token=record.id, name=record.name)


def _token(record: ServiceTokenRecord) -> ServiceToken:
    return ServiceToken(**{name: getattr(record, name) for name in ServiceToken.model_fields})
