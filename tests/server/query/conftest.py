"""The package `differential` of this folder, loaded under a unique module name."""

import importlib.util
import sys
from pathlib import Path

import pytest

_NAME = "query_tests_differential"


@pytest.fixture(scope="session")
def differential():
    """Load the package with random datasets and queries, and the oracle."""
    if _NAME not in sys.modules:
        folder = Path(__file__).parent / "differential"
        spec = importlib.util.spec_from_file_location(
            _NAME, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        module = sys.modules[_NAME] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[_NAME]
