"""Random inventories, random queries, and a plain reading of what each query means."""

from .asking import Asker
from .checking import CATALOG, Difference, answered, check, database
from .oracle import expected
from .worlds import NOW, World

__all__ = [
    "CATALOG",
    "NOW",
    "Asker",
    "Difference",
    "World",
    "answered",
    "check",
    "database",
    "expected",
]
