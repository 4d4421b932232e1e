"""What the pages can do, the command line can do."""

import inspect
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from pvemcp_server import admin, cli

OTHERWISE = {
    "keys.get_key": "keys list",
    "overview.recent_failures": "audit list --outcome error, or refused",
    "queries.schema": "tools call GetQuerySchema",
    "authentication.sign_in": "the system's user is signed in already",
    "authentication.sign_in_external": "the system's user is signed in already",
    "tools.caller_of": "--key of the commands that act as one",
    "tools.seen_tool": "tools list",
}


def operations() -> Iterator[str]:
    """The public operations of the administration, which pages and REST call."""
    for found in pkgutil.iter_modules(admin.__path__):
        module = import_module(f"{admin.__name__}.{found.name}")
        for name, one in inspect.getmembers(module, inspect.iscoroutinefunction):
            if one.__module__ == module.__name__ and not name.startswith("_"):
                yield f"{found.name}.{name}"


def test_every_operation_of_the_pages_is_a_command_or_named_with_what_replaces_it():
    (folder,) = cli.__path__
    sources = "".join(file.read_text() for file in Path(folder).glob("*.py"))
    missing = {one for one in operations() if f".{one.partition('.')[2]}(" not in sources}
    assert missing == set(OTHERWISE)
