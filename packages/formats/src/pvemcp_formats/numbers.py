"""Numbers as the shortest decimal that reads back as the same number."""

import math
import re

NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_NUMBER = re.compile(f"({NUMBER})")


def write_number(number: float) -> str | None:
    """Plain digits from 1e-6 up to 1e21, an exponent outside; None for NaN and infinities."""
    if not math.isfinite(number):
        return None
    if abs(number) < 1e21 and number == int(number):
        return str(int(number))
    return _plain(repr(number))


def read_number(text: str, otherwise: str) -> int | float | str:
    """The number, or what to take when the text is none or too large for a float."""
    if not _NUMBER.fullmatch(text):
        return otherwise
    if text.lstrip("-").isdigit():
        return int(text)
    number = float(text)
    if not math.isfinite(number):
        return otherwise
    return int(number) if number == int(number) else number


def _plain(text: str) -> str:
    """The text of a float, with Python's exponent spread out where it is short."""
    digits, _, exponent = text.partition("e")
    if not exponent:
        return text
    power = int(exponent)
    if not -7 < power < 0:
        return f"{digits}e{power:+d}"
    sign = "-" if digits.startswith("-") else ""
    return f"{sign}0.{'0' * (-power - 1)}{digits.removeprefix('-').replace('.', '')}"
