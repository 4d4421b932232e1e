"""Text for a terminal: text of a client or of Proxmox may hold characters that terminals obey."""

from pvemcp_server.config import this_command


def printable(text: str) -> str:
    """Replace control characters; line breaks stay."""
    return "".join(letter if is_shown(letter) else "�" for letter in text)


def one_line(text: str) -> str:
    """Replace control characters, and line breaks too: no text of others begins a line."""
    return printable(text.replace("\n", " "))


def is_shown(letter: str) -> bool:
    """Return whether a letter is printed as it is."""
    return letter.isprintable() or letter == "\n"


def no_cluster() -> str:
    """Return what a command says that examines clusters and finds none."""
    return f"No cluster is configured: {this_command()} clusters add."
