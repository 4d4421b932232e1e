"""The working directory decides neither what the server serves nor what it reads."""

import ast
from pathlib import Path

import pytest

SERVER = Path(__file__).parents[2] / "packages" / "server" / "src" / "pvemcp_server"
OPENERS = {"Path", "PurePath", "open", "StaticFiles", "FileSystemLoader", "FileResponse"}


def relative_paths(tree: ast.AST) -> list[str]:
    """Return the calls that name a path relative to the working directory, or ask for it."""
    return [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and _is_relative(node)
    ]


def _is_relative(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in {"cwd", "getcwd"} or (name == "Path" and not call.args and not call.keywords):
        return True
    values = [*call.args, *(keyword.value for keyword in call.keywords)][:1]
    return name in OPENERS and any(
        isinstance(value, ast.Constant)
        and isinstance(value.value, str)
        and not Path(value.value).is_absolute()
        and not (isinstance(call.func, ast.Attribute) and name == "open")  # path.open("rb")
        for value in values
    )


def test_no_source_of_the_server_names_a_relative_path():
    found = {
        str(file.relative_to(SERVER)): relative_paths(ast.parse(file.read_text()))
        for file in SERVER.rglob("*.py")
    }
    assert {file: calls for file, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    "source",
    ["Path('dist') / name", "open('key.pem')", "Path.cwd() / name", "StaticFiles(directory='web')"],
)
def test_a_relative_path_is_found(source: str):
    assert relative_paths(ast.parse(source))
