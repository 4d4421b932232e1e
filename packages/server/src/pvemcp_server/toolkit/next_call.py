"""A call that an answer offers: one that shows more, or that undoes a write."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class NextCall:
    """A call of a tool, ready to be made."""

    tool: str
    arguments: Arguments = field(default_factory=dict)

    @property
    def vmids(self) -> list[int]:
        """The guests that it names."""
        one = self.arguments.get("vmid")
        return [*self.arguments.get("vmids", ()), *([] if one is None else [one])]

    @property
    def text(self) -> str:
        return (
            f"{self.tool} {json.dumps(self.arguments, ensure_ascii=False, separators=(',', ':'))}"
        )
