"""Turns of keys: what takes long in the calls of one key runs in one thread at a time.

Those are queries, and the masking of long logs and raw answers. The threads are those of the whole
process: a key with many slow calls must leave them to others.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T")

_turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()


def has_turn(key_id: str) -> bool:
    """Return whether work of the key runs in a thread now."""
    turn = _turns.get(key_id)
    return turn is not None and turn.locked()


async def in_turn(key_id: str, work: Callable[[], T]) -> T:
    """Run the work in a thread when the key has no other work there.

    A thread cannot be cancelled: the turn lasts until it has ended, whatever the caller does.
    """
    turn = _turns.setdefault(key_id, asyncio.Lock())
    await turn.acquire()
    running = asyncio.ensure_future(asyncio.to_thread(work))

    def end(done: "asyncio.Future[T]") -> None:
        turn.release()
        if not done.cancelled():
            done.exception()  # retrieved, also if the caller has gone

    running.add_done_callback(end)
    return await asyncio.shield(running)
