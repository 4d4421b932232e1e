"""The endpoints, by area."""

import importlib
import pkgutil


def register() -> None:
    """Load every area, which lets its functions answer."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
