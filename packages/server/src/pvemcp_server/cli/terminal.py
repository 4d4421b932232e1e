"""Text for a terminal: text of a client or of Proxmox may hold characters that terminals obey."""

import shutil
import sys


def printable(text: str) -> str:
    """Replace control characters; line breaks stay."""
    return "".join(letter if is_shown(letter) else "�" for letter in text)


def one_line(text: str) -> str:
    """Replace control characters, and line breaks too: no text of others begins a line."""
    return printable(text.replace("\n", " "))


def is_shown(letter: str) -> bool:
    """Return whether a letter is printed as it is."""
    return letter.isprintable() or letter == "\n"


def this_command() -> str:
    """Return this command as a shell finds it: in a virtual environment it is on no path."""
    return "pvemcp" if shutil.which("pvemcp") else sys.argv[0]


def no_cluster() -> str:
    """Return what a command says that examines clusters and finds none."""
    return f"No cluster is configured: {this_command()} clusters add."
