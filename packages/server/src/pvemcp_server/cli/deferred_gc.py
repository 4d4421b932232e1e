"""Importing what a command needs."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def deferred_gc() -> Iterator[None]:
    """What is imported stays: looking for garbage meanwhile costs a fifth of the start."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
