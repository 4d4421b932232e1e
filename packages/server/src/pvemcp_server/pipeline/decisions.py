"""What a person says to a question that a call asks."""

from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mcp_types import InputRequiredResult


class Decision(Enum):
    """What became of a question to the person."""

    YES = auto()
    NO = auto()
    CANNOT_ASK = auto()  # this client never said that it could
    NO_ANSWER = auto()  # it was asked, and nothing that is a decision came back


class Asking(Exception):
    """2026-07-28: the question is this call's result; the answer comes with the call repeated."""

    def __init__(self, result: "InputRequiredResult") -> None:
        super().__init__("a question is on its way to the person")
        self.result = result
