"""Numbers as the shortest decimal that reads back as the same number."""

import math
import re

NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
INTEGER_DIGITS = 4300  # Python refuses to read more
_NUMBER = re.compile(f"({NUMBER})")


def write_number(number: float) -> str | None:
    """Plain digits from 1e-6 up to 1e21, an exponent outside; None for NaN and infinities."""
    if not math.isfinite(number):
        return None
    if number.is_integer() and abs(number) < 1e21:
        return str(int(number))  # all digits, as an integer is read with all digits
    digits, _, exponent = repr(number).partition("e")
    return _with_exponent(digits, int(exponent)) if exponent else digits


def read_number(text: str, otherwise: str) -> int | float | str:
    """The number, or what to take when the text is none or too large for a float."""
    if not _NUMBER.fullmatch(text):
        return otherwise
    if text.removeprefix("-").isdigit():
        return int(text) if len(text) < INTEGER_DIGITS else otherwise
    number = float(text)
    if not math.isfinite(number):
        return otherwise
    return int(number) if number == int(number) else number


def _with_exponent(digits: str, exponent: int) -> str:
    """The digits with their exponent, or with zeros before them where that is short."""
    if not -7 < exponent < 0:
        return f"{digits}e{exponent:+d}"
    sign = "-" if digits.startswith("-") else ""
    return f"{sign}0.{'0' * (-exponent - 1)}{digits.removeprefix('-').replace('.', '')}"
