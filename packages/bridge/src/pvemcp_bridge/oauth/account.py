"""The user's account at a server: its access token, renewal, and the sign-in in a browser."""

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pvemcp_bridge.errors import BridgeError, SignInFailed, SignInRequired
from pvemcp_bridge.oauth import documents
from pvemcp_bridge.oauth.browser import open_in_browser
from pvemcp_bridge.oauth.callback import ADDRESS, Callback, listening
from pvemcp_bridge.oauth.client import Discovery, OAuthClient
from pvemcp_bridge.oauth.documents import Challenge
from pvemcp_bridge.oauth.store import Credentials, Store
from pvemcp_bridge.target import Target

__all__ = ["SIGN_IN_SECONDS", "WAIT_SECONDS", "Attempt", "UserAccount"]

log = logging.getLogger(__name__)

SIGN_IN_SECONDS = 600.0
# A client that an authorization server has deleted since shows the user an error that the bridge
# does not see; servers delete those that are not used
_CLIENT_SECONDS = 3600.0
_STORE_POLL_SECONDS = 2.0
# A client that tries again at once, or a server that refuses every token, must not open one page
# after the other
_FAILURE_SECONDS = 60.0
_MOST_SIGN_INS = 5  # within SIGN_IN_SECONDS
_REFRESH_PAUSE_SECONDS = 30.0
_CLOSE_SECONDS = 2.0
WAIT_SECONDS = 20.0  # clients give up after 30 to 60 s


@dataclass(eq=False)
class SignIn:
    """A sign-in that waits for the user, or that has ended."""

    address: str
    scope: frozenset[str]
    in_browser: bool
    task: asyncio.Task[None]
    ended: float = 0.0

    @property
    def is_pending(self) -> bool:
        return not self.task.done()

    @property
    def has_failed(self) -> bool:
        """Whether it failed a moment ago."""
        if self.is_pending or self.task.cancelled() or not self.task.exception():
            return False
        return time.monotonic() - self.ended < _FAILURE_SECONDS

    def answers(self, scope: set[str]) -> bool:
        """Return whether the user was asked for these scopes in the last minutes."""
        return self.scope >= scope and time.monotonic() - self.ended < SIGN_IN_SECONDS


class UserAccount:
    """The user's account at one server.

    Requests use the stored access token. It is refreshed before it expires and when the server
    refuses it, by one request at a time, also of several processes: refresh tokens rotate, so one
    that was used twice ends the connection. Without a refresh token the user signs in, once for
    all waiting requests.
    """

    def __init__(
        self,
        target: Target,
        keep_secret: Callable[[str], None],
        *,
        is_interactive: bool = True,
        wait_seconds: float = WAIT_SECONDS,
        store: Store | None = None,
    ) -> None:
        self.store = store or Store(target.url)
        self.wait_seconds = wait_seconds
        self._target = target
        self._client = OAuthClient(target)
        self._keep_secret = keep_secret
        self._is_interactive = is_interactive
        self._credentials: Credentials | None = None
        self._is_loaded = False
        self._lock = asyncio.Lock()
        self._sign_in: SignIn | None = None
        self._started: deque[float] = deque(maxlen=_MOST_SIGN_INS)
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def credentials(self) -> Credentials | None:
        """Credentials in use; None before the first request and without a sign-in."""
        return self._credentials

    async def aclose(self) -> None:
        """Stop waiting for the user; let a refresh end, because its token cannot be used again."""
        if self._sign_in:
            self._sign_in.task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSE_SECONDS)
        for task in self._tasks:
            task.cancel()

    def attempt(self, *, interactive: bool) -> "Attempt":
        """Begin a request; only an interactive one makes the user sign in."""
        return Attempt(self, interactive=interactive and self._is_interactive)

    async def access_token(self) -> str:
        """Return the access token, renewed if it is about to expire; empty without a sign-in."""
        if not self._is_loaded:
            self._use(await self.store.read())
            self._is_loaded = True
        if self._is_expiring(self._credentials):
            async with self._lock:
                await self._renew_early()
        return self._credentials.access_token if self._credentials else ""

    async def replace_token(self, challenge: Challenge, refused: str, *, interactive: bool) -> bool:
        """Get another token than the refused one; return False if the server has no sign-in.

        Raise SignInRequired if the user has to sign in first.
        """
        async with self._lock:
            if await self._has_other_token(refused):
                return True
            sign_in = self._sign_in
            if not (sign_in and sign_in.is_pending):
                discovery = await self._client.discover(challenge)
                if discovery is None:
                    return False
                if self._may_refresh(discovery) and await self._shielded(self._refresh(refused)):
                    return True
                if not interactive:
                    raise SignInRequired("You are not signed in at this server.")
                sign_in = await self._begin(discovery, discovery.scope(challenge))
        await self._wait(sign_in)
        return True

    async def widen(self, challenge: Challenge, refused: str) -> bool:
        """Ask the user for the scopes of a challenge beside those granted before.

        Return False if the user has answered the same question in the last minutes.
        """
        async with self._lock:
            if await self._has_other_token(refused):
                return True
            granted = self._credentials.scope.split() if self._credentials else []
            scope = tuple(dict.fromkeys([*granted, *challenge.scope]))
            sign_in = self._sign_in
            if sign_in and not sign_in.is_pending and sign_in.answers({*scope}):
                return False
            if not (sign_in and sign_in.is_pending):
                discovery = await self._client.discover(challenge)
                if discovery is None:
                    return False
                scope = discovery.scope(replace(challenge, scope=scope))
                sign_in = await self._begin(discovery, scope)
        await self._wait(sign_in)
        return True

    async def _has_other_token(self, refused: str) -> bool:
        """Return whether there is another token by now, of this process or of another one."""
        if self._credentials is None or self._credentials.access_token in ("", refused):
            self._use(await self.store.read())
        return bool(self._credentials and self._credentials.access_token not in ("", refused))

    def _use(self, credentials: Credentials | None) -> None:
        self._credentials = credentials
        for secret in credentials.secrets.values() if credentials else ():
            self._keep_secret(secret)

    def _is_expiring(self, credentials: Credentials | None) -> bool:
        if credentials is None or not credentials.refresh_token:
            return False
        return credentials.renew_at is not None and time.time() >= credentials.renew_at

    def _may_refresh(self, discovery: Discovery) -> bool:
        """Return whether the refresh token is one of the server that the resource names now."""
        current = self._credentials
        return bool(current and current.refresh_token and current.issuer == discovery.server.issuer)

    async def _renew_early(self) -> None:
        """Refresh an expiring token; keep it on failure, because the server may still accept it."""
        current = self._credentials
        if current is None or not self._is_expiring(current):
            return
        try:
            await self._shielded(self._refresh(current.access_token))
        except BridgeError as error:
            log.warning("The sign-in could not be renewed: %s", error.fact)
            self._credentials = replace(current, renew_at=time.time() + _REFRESH_PAUSE_SECONDS)

    async def _refresh(self, used: str) -> bool:
        """Replace the token that was used by a new one, unless another process has; return success.

        The store is read again under the lock: the process that had it before may have refreshed.
        """
        async with self.store.lock():
            stored = await self.store.read()
            if stored and stored.access_token == used and stored.refresh_token:
                stored = await self._client.refresh(stored)
                await self.store.write(stored)
            self._use(stored)
        return bool(stored and stored.access_token not in ("", used))

    async def _shielded(self, work: Coroutine[Any, Any, bool]) -> bool:
        """Run to the end even if the request that started it is cancelled."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _begin(self, discovery: Discovery, scope: tuple[str, ...]) -> SignIn:
        """Start a sign-in and open its address in the browser; return one that has just failed."""
        if self._sign_in and self._sign_in.has_failed:
            return self._sign_in
        now = time.monotonic()
        if len(self._started) == _MOST_SIGN_INS and now - self._started[0] < SIGN_IN_SECONDS:
            raise SignInFailed("The server asks for a sign-in again and again.")
        self._started.append(now)
        address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        task = asyncio.get_running_loop().create_task(self._run(discovery, scope, address))
        try:
            futures: set[asyncio.Future[Any]] = {task, address}
            await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
            if not address.done():
                await task  # raises what went wrong
            url = address.result()
            in_browser = await open_in_browser(url)
        except BaseException:
            task.cancel()
            raise
        log.warning(
            "Sign in %s: %s", "in the browser that opened" if in_browser else "at this address", url
        )
        self._sign_in = sign_in = SignIn(url, frozenset(scope), in_browser, task)
        task.add_done_callback(lambda _: _ended(sign_in))
        return sign_in

    async def _wait(self, sign_in: SignIn) -> None:
        """Wait for the user for a while; raise SignInRequired with the address after it."""
        if sign_in.is_pending and (sign_in.in_browser or self.wait_seconds > WAIT_SECONDS):
            await asyncio.wait({sign_in.task}, timeout=self.wait_seconds)
        if sign_in.is_pending:
            raise SignInRequired(
                f"Sign in first, in a browser on this computer: {sign_in.address}",
                hint="Then try again. For a browser elsewhere, run `pvemcp-bridge login`.",
                address=sign_in.address,
                signed_in=sign_in.task,
            )
        await asyncio.shield(sign_in.task)  # raises why it failed

    async def _run(
        self, discovery: Discovery, scope: tuple[str, ...], address: asyncio.Future[str]
    ) -> None:
        """Sign in once: register if needed, wait for the browser, store the tokens."""
        server, version = discovery.server, self.store.version
        stored = await self.store.read()
        known = stored if stored and stored.issuer == server.issuer and stored.client_id else None
        state = secrets.token_urlsafe(32)
        async with listening(state, _port(known)) as callback:
            client = await self._registered(known, discovery, callback, scope)
            authorization = self._client.authorization(server, client, scope, state)
            address.set_result(authorization.url)
            response = await self._response(callback, stored, version)
            if response is None:
                return
            credentials = await self._client.exchange(server, client, authorization, response)
        async with self.store.lock():
            await self.store.write(credentials)
        self._use(credentials)
        log.warning("Signed in at %s.", server.issuer)

    async def _registered(
        self,
        known: Credentials | None,
        discovery: Discovery,
        callback: Callback,
        scope: tuple[str, ...],
    ) -> Credentials:
        """Return the registered client, or register: at another issuer, address or wider scope."""
        if (
            known
            and time.time() - known.used_at < _CLIENT_SECONDS
            and known.redirect_uri == callback.redirect_uri
            and {*scope} <= {*known.client_scope.split()}
        ):
            return replace(
                known,
                resource=discovery.resource.resource,
                token_endpoint=discovery.server.token_endpoint,
                revocation_endpoint=discovery.server.revocation_endpoint,
            )
        client = await self._client.register(discovery, callback.redirect_uri, scope)
        async with self.store.lock():
            stored = await self.store.read()
            if not (stored and stored.access_token):  # else another process was faster
                await self.store.write(client)  # for the next start, if this one ends before
        return client

    async def _response(
        self, callback: Callback, before: Credentials | None, version: int
    ) -> Mapping[str, str] | None:
        """Return what the browser brings; None if another process has signed in by then.

        The store is read when it has changed only: a locked keychain asks the user at each read.
        """
        used = before.access_token if before else ""
        deadline = time.monotonic() + SIGN_IN_SECONDS
        while time.monotonic() < deadline:
            await asyncio.wait({callback.response}, timeout=_STORE_POLL_SECONDS)
            if callback.response.done():
                return callback.response.result()
            if self.store.version == version:
                continue
            version = self.store.version
            stored = await self.store.read()
            if stored and stored.access_token not in ("", used):
                self._use(stored)
                return None
        raise SignInFailed("The sign-in was not completed in time.")


class Attempt:
    """One request of the account: its token, and how often it may be replaced."""

    def __init__(self, account: UserAccount, *, interactive: bool) -> None:
        self._account = account
        self._interactive = interactive
        self._token = ""
        self._replacements = 2  # a refresh, then a sign-in
        self._widenings = 1

    async def headers(self) -> dict[str, str]:
        """Return the header with the token; empty without one."""
        self._token = await self._account.access_token()
        return {"authorization": f"Bearer {self._token}"} if self._token else {}

    async def may_repeat(self, status: int, challenge_header: str) -> bool:
        """Return whether the request may be sent again after this refusal, with another token."""
        challenge = documents.challenge(challenge_header)
        if status == 401 and self._replacements:
            self._replacements -= 1
            return await self._account.replace_token(
                challenge, self._token, interactive=self._interactive
            )
        is_short = status == 403 and challenge.error == "insufficient_scope"
        if is_short and self._interactive and self._widenings and self._token:
            self._widenings -= 1
            return await self._account.widen(challenge, self._token)
        return False


def _port(client: Credentials | None) -> int:
    """Return the port of the registered address: some servers compare it exactly."""
    match = ADDRESS.match(client.redirect_uri) if client else None
    return int(match[1]) % (1 << 16) if match else 0


def _ended(sign_in: SignIn) -> None:
    sign_in.ended = time.monotonic()
    if not sign_in.task.cancelled():
        sign_in.task.exception()  # requests that still wait raise it
