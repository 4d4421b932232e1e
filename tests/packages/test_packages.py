"""What each of the four packages brings along and asks for."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))
# Drivers that a database's URL names, and what reads forms for Starlette
UNNAMED = {"aiosqlite", "asyncpg", "python-multipart"}
# An editable installation does not tell which modules are its own
OURS = {"pvemcp-client", "pvemcp-formats"}

package = pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~ ]", name, maxsplit=1)[0]).lower()


def _asked_for(package: Path) -> set[str]:
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    extras = project.get("optional-dependencies", {}).values()
    named = [*project["dependencies"], *(name for extra in extras for name in extra)]
    return {_normal(name) for name in named}


def _imported(package: Path) -> set[str]:
    trees = [ast.parse(path.read_text()) for path in package.glob("src/**/*.py")]
    found: set[str] = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    known = packages_distributions()
    return {_normal(name) for module in found for name in known.get(module, ())}


@package
def test_it_asks_for_nothing_that_it_does_not_use(package):
    assert _asked_for(package) - _imported(package) - UNNAMED - OURS == set()


@package
def test_it_brings_the_licence_and_words_about_itself(package):
    assert (package / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert len((package / "README.md").read_text().splitlines()) > 5


def test_the_emulator_says_which_extra_it_needs():
    without = "import sys; sys.modules['h11'] = None; import proxmox_client.emulator"
    told = subprocess.run(
        [sys.executable, "-c", without], capture_output=True, text=True, check=False
    )
    assert "The emulator needs h11: pip install 'pvemcp-client[emulator]'" in told.stderr
