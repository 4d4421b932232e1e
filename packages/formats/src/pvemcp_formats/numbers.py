"""Numbers as the shortest decimal that is read as the same number."""

import math
import re

NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
INTEGER_DIGITS = 4300  # Python does not convert more
_WORDS = {"nan": None, "inf": None, "-inf": None, "-0.0": "0"}
_NUMBER = re.compile(NUMBER)


def write_number(number: float) -> str | None:
    """Write plain digits from 1e-6 to 1e21, else an exponent; None for NaN and infinities."""
    text = float.__repr__(number)
    if text in _WORDS:
        return _WORDS[text]
    return _without_exponent(number, text) if "e" in text else text.removesuffix(".0")


def read_number(text: str, otherwise: str) -> int | float | str:
    """Read a number; return `otherwise` if the text is not a number, or is too large."""
    if not _NUMBER.fullmatch(text):
        return otherwise
    if text.removeprefix("-").isdigit():
        return int(text) if len(text) < INTEGER_DIGITS else otherwise
    number = float(text)
    if not math.isfinite(number):
        return otherwise
    return int(number) if number == int(number) else number


def _without_exponent(number: float, text: str) -> str:
    """Return the plain digits of a number that Python writes with an exponent.

    Keep the exponent outside of 1e-6 to 1e21.
    """
    digits, _, exponent = text.partition("e")
    power = int(exponent)
    if 0 < power < 21:
        return str(int(number))  # all digits, because integers are exact
    if not -7 < power < 0:
        return f"{digits}e{power:+d}"
    sign = "-" if digits.startswith("-") else ""
    return f"{sign}0.{'0' * (-power - 1)}{digits.removeprefix('-').replace('.', '')}"
