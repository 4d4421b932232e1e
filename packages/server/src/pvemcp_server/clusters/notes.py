"""Notes: sentences beside an answer's data, about missing, cut or old data."""

from collections.abc import Iterator


class Notes:
    """An ordered set of sentences."""

    def __init__(self) -> None:
        self._sentences: dict[str, None] = {}

    def add(self, sentence: str) -> None:
        self._sentences[sentence] = None

    def __iter__(self) -> Iterator[str]:
        return iter(self._sentences)

    def __bool__(self) -> bool:
        return bool(self._sentences)
