"""Differential tests: random datasets and queries, answered by the engine and by a plain oracle."""

from .comparison import CATALOG, Difference, answer, check, database
from .datasets import NOW, Dataset
from .generator import QueryGenerator
from .oracle import expected

__all__ = [
    "CATALOG",
    "NOW",
    "Dataset",
    "Difference",
    "QueryGenerator",
    "answer",
    "check",
    "database",
    "expected",
]
