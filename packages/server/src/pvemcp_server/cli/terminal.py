"""Text for a terminal: text of a client or of Proxmox may hold characters that terminals obey."""


def printable(text: str) -> str:
    """Replace control characters; line breaks stay."""
    return "".join(letter if is_shown(letter) else "�" for letter in text)


def one_line(text: str) -> str:
    """Replace control characters, and line breaks too: no text of others begins a line."""
    return printable(text.replace("\n", " "))


def is_shown(letter: str) -> bool:
    """Return whether a letter is printed as it is."""
    return letter.isprintable() or letter == "\n"
