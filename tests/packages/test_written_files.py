"""No package writes a file by a call that follows links or leaves the mode to the umask."""

import ast
from pathlib import Path

import pytest

PACKAGES = Path(__file__).parents[2] / "packages"
FILES = [
    path
    for path in PACKAGES.glob("*/src/**/*.py")
    if not path.match("*/emulator/**/*.py") and "emulator" not in path.parts
]
WRITING_METHODS = {"write_text", "write_bytes", "copy", "copy2", "copyfile", "NamedTemporaryFile"}


def writes(tree: ast.AST) -> list[str]:
    """Return the calls that create a file without a private opener or O_EXCL."""
    return [
        f"line {node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and is_unsafe(node)
    ]


def is_unsafe(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    owner = call.func.value.id if _is_of_module(call.func) else ""
    if name in WRITING_METHODS:
        return name not in {"copy", "copy2", "copyfile"} or owner == "shutil"
    if name != "open" or any(keyword.arg == "opener" for keyword in call.keywords):
        return False
    if owner == "os":
        flags = ast.unparse(call.args[1])
        return "O_CREAT" in flags and "O_EXCL" not in flags and len(call.args) < 3
    modes = [arg.value for arg in call.args if isinstance(arg, ast.Constant)]
    return owner != "gzip" and any(
        isinstance(mode, str) and set(mode) & set("wax") and len(mode) <= 3 for mode in modes
    )


def _is_of_module(function: ast.expr) -> bool:
    return isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name)


def test_files_are_written_privately():
    found = {str(file): writes(ast.parse(file.read_text())) for file in FILES}
    assert {file: calls for file, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    "source",
    [
        "path.write_text('x')",
        "path.open('wb')",
        "open(path, 'a+')",
        "os.open(path, os.O_WRONLY | os.O_CREAT)",
        "shutil.copy2(a, b)",
    ],
)
def test_an_unsafe_call_is_found(source: str):
    assert writes(ast.parse(source))
