"""What an answer has to say beside its data: who did not answer, what was cut, how old it is."""

from collections.abc import Iterator


class Notes:
    """An ordered set of sentences; each is said once."""

    def __init__(self) -> None:
        self._lines: dict[str, None] = {}

    def add(self, sentence: str) -> None:
        self._lines[sentence] = None

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __bool__(self) -> bool:
        return bool(self._lines)
