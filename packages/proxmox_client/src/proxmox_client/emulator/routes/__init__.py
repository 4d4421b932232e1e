"""The handlers of the emulated endpoints, one module per area."""

import importlib
import pkgutil


def register() -> None:
    """Import every module, which registers its handlers."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
