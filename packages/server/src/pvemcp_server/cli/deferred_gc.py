"""Imports without garbage collection."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def deferred_gc() -> Iterator[None]:
    """Disable the garbage collector while importing; imported objects are never looked at later.

    Imports leave next to no garbage, and the search for it takes a fifth of the start-up time; so
    does the first search of all imported objects afterwards.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
