"""Limits that hold for all processes together: calls a minute, and calls at a time.

PostgreSQL has the buckets and the claims. A process takes from them ahead of its calls, in one
statement for all names that wait, so the number of statements depends on time and not on calls:

- tokens of a rate: what waits, or a tenth of what is left if that is more; what is not used within
  a second goes back. They are taken from one bucket, so no number of processes admits more than
  its rate.
- places of concurrent calls: what runs and waits. A free one is kept for a tenth of a second, in
  case the key calls again, and others wait for it for longer than that. Those of a process without
  signs of life are free.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import Context
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final

import anyio

from pvemcp_server.errors import StateUnavailable
from pvemcp_server.store.fleet import IS_ALIVE, NOW, Fleet

SHARE: Final = 0.1  # of the tokens that are left, which a process takes ahead
TOKENS_IDLE_SECONDS: Final = 1.0  # then unused ones go back
PLACES_IDLE_SECONDS: Final = 0.1
SWEEP_SECONDS: Final = 0.1
CLAIM_SECONDS: Final = 0.3  # to wait for places that other processes keep without a call
_LONGEST_PAUSE: Final = 0.1
_EMPTY_SECONDS: Final = 1.0  # for which an empty bucket is not asked again: others may give back

_TAKE: Final = f"""
INSERT INTO rate_buckets AS b (name, since, capacity, wanted, granted, tokens)
SELECT name, {NOW}, capacity, wanted, own, capacity - own
FROM unnest($1::text[], $2::float8[], $3::float8[]) AS asked (name, capacity, wanted),
    LATERAL (SELECT CASE WHEN wanted > 0
        THEN least(capacity, greatest(wanted, floor(capacity * {SHARE}))) ELSE 0 END) AS o (own)
ON CONFLICT (name) DO UPDATE SET
    (tokens, granted) = (
        SELECT available - own, own
        FROM (SELECT least(
                excluded.capacity,
                b.tokens + greatest(0, excluded.since - b.since) * excluded.capacity / 60
            )) AS t (available),
            LATERAL (SELECT CASE WHEN excluded.wanted > 0
                THEN least(
                    floor(available),
                    greatest(excluded.wanted, floor(available * {SHARE}))
                )
                ELSE excluded.wanted END) AS o (own)
    ),
    capacity = excluded.capacity,
    wanted = excluded.wanted,
    -- one that is far ahead shows a clock that was set back
    since = CASE WHEN b.since > excluded.since + 5 THEN excluded.since
        ELSE greatest(b.since, excluded.since) END
RETURNING name, granted, tokens"""  # noqa: S608 - constants of this module
_CLAIM: Final = f"""
INSERT INTO claims AS c (name, most, granted, held, changed)
SELECT name, most, least(wanted, most), jsonb_build_object($1::text, least(wanted, most))::text,
    {NOW}
FROM unnest($2::text[], $3::int[], $4::int[]) AS asked (name, most, wanted)
ON CONFLICT (name) DO UPDATE SET
    (held, granted) = (
        SELECT (others || CASE WHEN own > 0
            THEN jsonb_build_object($1::text, own) ELSE '{{}}'::jsonb END)::text, own
        FROM (
                SELECT coalesce(jsonb_object_agg(key, value), '{{}}'), coalesce(sum(value::int), 0)
                FROM jsonb_each(c.held::jsonb) JOIN processes ON id = key
                WHERE key <> $1 AND {IS_ALIVE}
            ) AS o (others, number),
            LATERAL (SELECT greatest(0, least(excluded.granted, excluded.most - number))::int)
                AS m (own)
    ),
    most = excluded.most,
    changed = excluded.changed
RETURNING name, granted"""  # noqa: S608 - constants of this module and of `fleet`


@dataclass(slots=True)
class _Tokens:
    """The tokens of one bucket that this process has taken ahead."""

    capacity: float = 0.0
    left: float = 0.0
    waiting: int = 0
    used: float = 0.0  # on the monotonic clock
    empty_until: float = 0.0
    is_settling: bool = False  # a statement about it is on its way


@dataclass(slots=True)
class _Places:
    """The places of one name that this process has claimed."""

    most: int = 0
    running: int = 0
    held: int = 0
    waiting: int = 0
    used: float = 0.0  # when a call ended, on the monotonic clock
    is_settling: bool = False  # a statement about them is on its way
    freed: asyncio.Event = field(default_factory=asyncio.Event)


@contextmanager
def _settling(entries: Iterable[_Tokens | _Places]) -> Iterator[None]:
    """Keep entries while a statement about them is on its way, whose result they get."""
    settled = list(entries)
    for entry in settled:
        entry.is_settling = True
    try:
        yield
    finally:
        for entry in settled:
            entry.is_settling = False


class _Turns:
    """Runs one statement at a time; all that ask while it runs share the next one.

    It is not cancelled with a caller: what it has taken in the database must be known here.
    """

    def __init__(self, settle: Callable[[], Awaitable[None]]) -> None:
        self._settle = settle
        self._current: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    async def share(self) -> None:
        """Return when a statement that began after this call has ended."""
        if self._next is None:
            self._next = asyncio.create_task(self._after(self._current), context=Context())
            # retrieve the exception, which asyncio would log if every caller has left
            self._next.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._next)

    async def _after(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        self._current, self._next = self._next, None
        await self._settle()


class SharedLimits:
    """The part of the shared limits that this process has taken."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._tokens: dict[str, _Tokens] = {}
        self._places: dict[str, _Places] = {}
        self._token_turns = _Turns(self._settle_tokens)
        self._place_turns = _Turns(self._settle_places)
        self._renews = False
        fleet.on_join(self._renew)

    @property
    def are_used(self) -> bool:
        """Whether this process shares them; a command counts for itself."""
        return self._fleet.takes_part

    async def take(self, name: str, per_minute: int) -> bool:
        """Take a token of the bucket; return False when it is empty."""
        tokens = self._tokens.setdefault(name, _Tokens())
        tokens.capacity = per_minute
        if tokens.left < 1 and monotonic() >= tokens.empty_until:
            tokens.waiting += 1
            try:
                await self._token_turns.share()
            finally:
                tokens.waiting -= 1
        if tokens.left < 1:
            return False
        tokens.left -= 1
        tokens.used = monotonic()
        return True

    def give_back(self, name: str) -> None:
        """Return a token that was taken."""
        if tokens := self._tokens.get(name):
            tokens.left += 1

    async def claim(self, name: str, most: int, seconds: float = CLAIM_SECONDS) -> bool:
        """Claim a place for a call; return False if none becomes free within `seconds`."""
        ends, pause = monotonic() + seconds, _LONGEST_PAUSE / 8
        places = self._places.setdefault(name, _Places())
        places.most = most
        places.waiting += 1
        try:
            while places.running >= places.held:
                if places.running < most:
                    await self._place_turns.share()
                    if places.running < places.held:
                        break
                if monotonic() >= ends:
                    return False
                places.freed.clear()
                with anyio.move_on_after(min(pause, ends - monotonic())):
                    await places.freed.wait()
                pause = min(pause * 2, _LONGEST_PAUSE)
            places.running += 1
        finally:
            places.waiting -= 1
        return True

    def release(self, name: str) -> None:
        """Release a place that was claimed."""
        places = self._places[name]
        places.running -= 1
        places.used = monotonic()
        places.freed.set()

    async def run(self, stop: anyio.Event) -> None:
        """Give back what is not used, until `stop` is set."""
        while not stop.is_set():
            with anyio.move_on_after(SWEEP_SECONDS):
                await stop.wait()
            with suppress(StateUnavailable):  # tried again; the connection logs it itself
                await self.give_back_idle()

    async def give_back_idle(self) -> None:
        """Give back tokens and places that no call has used for a while; renew lost claims."""
        now = monotonic()
        idle = [t for t in self._tokens.values() if t.used + TOKENS_IDLE_SECONDS <= now]
        if any(tokens.left for tokens in idle):
            await self._token_turns.share()
        free = [p for p in self._places.values() if p.held > p.running]
        if self._renews or any(p.used + PLACES_IDLE_SECONDS <= now for p in free):
            await self._place_turns.share()
        self._forget(now)

    def _renew(self) -> None:
        """Claim again what runs: others took this process for dead, or PostgreSQL has crashed."""
        self._renews = True

    def _forget(self, now: float) -> None:
        if self._renews:
            return  # the database may have claims that are not known here
        for name, tokens in list(self._tokens.items()):
            is_used = tokens.left or tokens.waiting or tokens.is_settling
            if not is_used and max(tokens.used, tokens.empty_until) < now:
                del self._tokens[name]
        for name, places in list(self._places.items()):
            if not (places.held or places.running or places.waiting or places.is_settling):
                del self._places[name]

    async def _settle_tokens(self) -> None:
        """Take tokens for the calls that wait, and give back those that are idle."""
        now = monotonic()
        requests: dict[str, tuple[float, float]] = {}
        for name, tokens in self._tokens.items():
            if tokens.waiting and tokens.left < 1:
                requests[name] = (tokens.capacity, float(tokens.waiting))
            elif tokens.left and tokens.used + TOKENS_IDLE_SECONDS <= now:
                requests[name] = (tokens.capacity, -tokens.left)
                tokens.left = 0.0
        with _settling(self._tokens[name] for name in requests):
            rows = await self._sent(_TAKE, requests)
        for row in rows:
            tokens = self._tokens[row["name"]]
            if row["granted"] >= 0:
                tokens.left += row["granted"]
                if not row["granted"]:
                    seconds = (1 - row["tokens"]) * 60 / tokens.capacity
                    tokens.empty_until = monotonic() + min(seconds, _EMPTY_SECONDS)

    async def _settle_places(self) -> None:
        """Claim what runs and waits, and no more."""
        now, renews, self._renews = monotonic(), self._renews, False
        requests: dict[str, tuple[int, int]] = {}
        for name, places in self._places.items():
            number = places.running + places.waiting
            is_idle = places.held > number and places.used + PLACES_IDLE_SECONDS <= now
            if number > places.held or is_idle or renews:
                requests[name] = (places.most, number)
                places.held = min(places.held, number)  # none of what goes back is used now
        try:
            with _settling(self._places[name] for name in requests):
                rows = await self._sent(_CLAIM, requests, self._fleet.id)
        except BaseException:
            self._renews = True
            raise
        for row in rows:
            places = self._places[row["name"]]
            places.held = row["granted"]
            places.freed.set()

    async def _sent(
        self,
        sql: str,
        requests: Mapping[str, tuple[float, float]],
        *more: Any,
    ) -> Sequence[Any]:
        if not requests:
            return []
        names = sorted(requests)  # in one order, so that processes cannot deadlock
        columns = zip(*(requests[name] for name in names), strict=True)
        return await self._fleet.fetch(sql, *more, names, *(list(column) for column in columns))
