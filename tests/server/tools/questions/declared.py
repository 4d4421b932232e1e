"""All questions: importing this module declares them."""

from . import (  # noqa: F401 - each declares its own
    access,
    backups,
    changes,
    guests,
    metrics,
    network,
    nodes,
    storage,
    traps,
    writes,
)
from .model import QUESTIONS as QUESTIONS
