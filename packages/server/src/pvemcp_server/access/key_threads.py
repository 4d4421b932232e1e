"""Threads of keys: what takes long in the calls of one key runs in one thread at a time.

Those are slow queries, and the masking of long logs and raw answers. The threads are those of the
whole process: a key with many slow calls must leave them to others.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T")

_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()


def has_key_thread(key_id: str) -> bool:
    """Return whether work of the key runs in a thread now."""
    lock = _locks.get(key_id)
    return lock is not None and lock.locked()


async def in_key_thread(key_id: str, work: Callable[[], T]) -> T:
    """Run the work in a thread when the key has no other work there.

    A thread cannot be cancelled: the key's lock is held until it has ended, whatever the caller
    does.
    """
    lock = _locks.setdefault(key_id, asyncio.Lock())
    await lock.acquire()
    running = asyncio.ensure_future(asyncio.to_thread(work))

    def end(done: "asyncio.Future[T]") -> None:
        lock.release()
        if not done.cancelled():
            done.exception()  # retrieved, also if the caller has gone

    running.add_done_callback(end)
    return await asyncio.shield(running)
