"""Commands of the sign-in: login, logout, and its state for the doctor."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import httpx2 as httpx

from pvemcp_bridge.annotations import ToolAnnotations
from pvemcp_bridge.errors import BridgeError, Refused, SignInFailed
from pvemcp_bridge.exchange import Exchange, OutgoingRequest
from pvemcp_bridge.headers import mirrored_headers
from pvemcp_bridge.logs import Masker
from pvemcp_bridge.messages import VERSION_KEY, Message, request
from pvemcp_bridge.oauth.account import SIGN_IN_SECONDS, UserAccount
from pvemcp_bridge.oauth.callback import ADDRESS
from pvemcp_bridge.oauth.client import OAuthClient
from pvemcp_bridge.oauth.store import Credentials, Store
from pvemcp_bridge.oauth.threads import in_thread
from pvemcp_bridge.target import Target
from pvemcp_bridge.transport import Transport

__all__ = ["describe", "login", "logout"]

_VERSION = "2026-07-28"
_META = {VERSION_KEY: _VERSION, "io.modelcontextprotocol/clientCapabilities": {}}
_HAS_KEY = "This URL, or the options, hold a key: the bridge uses it and needs no sign-in."


async def login(target: Target, mask: Masker, read_line: Callable[[], str] | None = None) -> str:
    """Sign in and wait for the user; return the result as a sentence. Raise a BridgeError.

    With `read_line` the user may also paste the address at which a browser elsewhere has ended.
    """
    if target.has_key:
        raise SignInFailed(_HAS_KEY, hint="")
    pasted = asyncio.create_task(_take_addresses(read_line)) if read_line else None
    try:
        return await _login(target, mask)
    finally:
        if pasted:
            pasted.cancel()


async def _take_addresses(read_line: Callable[[], str]) -> None:
    """Open the addresses of this computer that the user enters: the sign-in listens at one."""
    with suppress(TimeoutError):
        while line := await in_thread(read_line, seconds=SIGN_IN_SECONDS):
            if ADDRESS.match(line):
                with suppress(httpx.HTTPError, httpx.InvalidURL):
                    async with httpx.AsyncClient(trust_env=False) as client:
                        await client.get(line.strip())


async def _login(target: Target, mask: Masker) -> str:
    account = UserAccount(target, mask.add, wait_seconds=SIGN_IN_SECONDS)
    async with Transport(target, account) as transport:
        exchange = Exchange(transport, ToolAnnotations(), target.read_timeout, mask)
        message = request("login", "server/discover", {"_meta": _META})
        headers = mirrored_headers(message, _VERSION, {})
        try:
            await exchange.request(OutgoingRequest(message, headers, _discard))
        except Refused as refused:
            if not refused.reply or refused.status in (401, 403):
                raise  # else the server only lacks this era
        credentials = account.credentials
    if credentials is None or not credentials.access_token:
        return f"{target.origin} needs no sign-in."
    return describe(credentials, account.store)


async def logout(target: Target) -> tuple[str, bool]:
    """Revoke the tokens and forget them; return a sentence, and whether the server confirmed it."""
    store = Store(target.url)
    try:
        async with store.lock():
            credentials = await store.read()
            if credentials is None or not credentials.access_token:
                await store.delete()
                return f"You are not signed in at {target.origin}.", True
            is_revoked = await OAuthClient(target).revoke(credentials)
            await store.delete()
    except (BridgeError, OSError) as error:
        return f"The sign-in could not be removed: {error}", False
    if is_revoked:
        return f"Signed out of {target.origin}.", True
    text = f"Signed out on this computer, but {credentials.issuer} did not confirm it: end the "
    return f"{text}connection there.", False


def describe(credentials: Credentials, store: Store) -> str:
    """Return how the user is signed in, without secrets."""
    scope = credentials.scope or "not named"
    renewal = "renewed without you" if credentials.refresh_token else "not renewable"
    return f"signed in at {credentials.issuer}; scope {scope}; {renewal}; kept in {store.place}"


async def _discard(_: Message) -> None:
    """Discard messages that precede the reply."""
