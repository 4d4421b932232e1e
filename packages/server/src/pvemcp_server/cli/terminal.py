"""Text for a terminal: text of a client or of Proxmox may hold characters that terminals obey."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import typer

from pvemcp_server.program_name import this_command

_LONG_WORD: Final = re.compile(r"(\S{200})(\S{100,})")


def printable(text: str) -> str:
    """Replace control characters; line breaks stay."""
    return "".join(letter if is_shown(letter) else "�" for letter in text)


def one_line(text: str) -> str:
    """Replace control characters, and line breaks too: no text of others begins a line."""
    return printable(text.replace("\n", " "))


def shortened(text: str) -> str:
    """Cut words of more letters than a path has: a value in an error does not hide its sentence."""
    return _LONG_WORD.sub(lambda word: f"{word[1]}… ({len(word[2])} more characters)", text)


def print_error(text: str) -> None:
    """Print an error on standard error, in one line."""
    typer.secho(one_line(shortened(text)), fg="red", err=True)


def is_shown(letter: str) -> bool:
    """Return whether a letter is printed as it is."""
    return letter.isprintable() or letter == "\n"


@contextmanager
def usable_streams() -> Iterator[None]:
    """Open the standard streams that the caller has closed; an error of them ends with one line.

    A file that is opened later, as the database, would get the number of a closed stream, and with
    it what is printed.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - as long as the process
    try:
        yield
    except OSError as error:
        sys.exit(f"{error.strerror or error}: {error.filename or 'the output'}.")


def no_cluster() -> str:
    """Return what a command says that examines clusters and finds none."""
    return f"No cluster is configured: {this_command()} clusters add."
