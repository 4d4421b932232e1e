"""Dependencies, licence and README of each of the four packages."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))
# Loaded by name: database drivers from the URL, the form parser by Starlette
LOADED_BY_NAME = {"aiosqlite", "asyncpg", "python-multipart"}
# the files of an editable installation are not its modules
EDITABLE = {"pvemcp-bridge", "pvemcp-client", "pvemcp-formats"}

package = pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)


def _project(package: Path) -> dict:
    return tomllib.loads((package / "pyproject.toml").read_text())["project"]


def _normalized(requirement: str) -> str:
    name = re.split(r"[\[<>=!~ ]", requirement, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def _declared(package: Path) -> set[str]:
    project = _project(package)
    extras = project.get("optional-dependencies", {}).values()
    requirements = [*project["dependencies"], *(name for extra in extras for name in extra)]
    return {_normalized(requirement) for requirement in requirements}


def _modules(requirement: str) -> set[str]:
    """Return the top-level modules of a package; where it is not installed, one of its name."""
    try:
        found = distribution(requirement)
    except PackageNotFoundError:
        return {requirement.replace("-", "_")}
    declared = set((found.read_text("top_level.txt") or "").split())
    return declared or {path.parts[0].partition(".")[0] for path in found.files or ()}


def _imported(package: Path) -> set[str]:
    """Return the top-level modules that the package imports."""
    modules: set[str] = set()
    for path in package.glob("src/**/*.py"):
        for node in _statements(ast.parse(path.read_text()).body):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.partition(".")[0])
    return modules


def _statements(body: list[ast.AST]) -> Iterator[ast.AST]:
    """Yield the statements and those inside of them: `ast.walk` would visit every expression."""
    for node in body:
        yield node
        for part in ("body", "orelse", "finalbody", "handlers", "cases"):
            yield from _statements(getattr(node, part, []))


@package
def test_every_declared_dependency_is_imported(package):
    imported = _imported(package)
    needed = _declared(package) - LOADED_BY_NAME - EDITABLE
    assert {name for name in needed if not _modules(name) & imported} == set()


@package
def test_a_package_has_the_licence_and_a_readme(package):
    assert (package / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert len((package / "README.md").read_text().splitlines()) > 5


def test_the_server_has_the_emulator_as_an_extra_only():
    project = _project(ROOT / "packages" / "server")
    assert not any("emulator" in requirement for requirement in project["dependencies"])
    assert project["optional-dependencies"]["demo"] == ["pvemcp-client[emulator]>=0.2,<0.3"]


def test_make_run_installs_every_extra_with_pinned_packages():
    requirements = (ROOT / "requirements.in").read_text()
    assert "-e ./packages/server[charts,demo,oidc,otel]\n" in requirements
    pinned = re.findall(r"^([^=\s]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    emulator = _project(ROOT / "packages" / "proxmox_client")["optional-dependencies"]["emulator"]
    extras = _project(ROOT / "packages" / "server")["optional-dependencies"]
    needed = emulator + extras["charts"] + extras["oidc"] + extras["otel"]
    assert {_normalized(name) for name in needed} <= {_normalized(name) for name in pinned}


def test_the_emulator_names_the_extra_it_needs():
    without_h11 = "import sys; sys.modules['h11'] = None; import proxmox_client.emulator"
    process = subprocess.run(
        [sys.executable, "-c", without_h11], capture_output=True, text=True, check=False
    )
    assert "The emulator needs h11: pip install 'pvemcp-client[emulator]'" in process.stderr
