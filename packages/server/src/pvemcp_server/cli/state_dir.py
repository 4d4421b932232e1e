"""The option --state-dir, before a command or after it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

VARIABLE: Final = "PVEMCP_STATE_DIR"
StateDir = Annotated[
    Path | None, typer.Option(help=f"State folder, in place of {VARIABLE}.", show_default=False)
]


@contextmanager
def named(state_dir: Path | None) -> Iterator[None]:
    """Use this state folder in the body, also in processes that it starts."""
    before = os.environ.get(VARIABLE)
    try:
        if state_dir is not None:
            os.environ[VARIABLE] = str(state_dir.absolute())
        yield
    finally:
        if state_dir is not None:
            del os.environ[VARIABLE]
            os.environ.update({} if before is None else {VARIABLE: before})
