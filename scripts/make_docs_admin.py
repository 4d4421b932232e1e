"""Write the table of the REST API in docs/users/administration.md from its OpenAPI description.

python scripts/make_docs_admin.py           write it
python scripts/make_docs_admin.py --check   fail when it is not current
"""

from collections.abc import Iterator
from pathlib import Path

from pages import renew_or_check
from pvemcp_server.store.records import AdminRole
from pvemcp_server.web.api import create_api

PAGE = Path(__file__).parents[1] / "docs" / "users" / "administration.md"
BEGIN, END = "<!-- operations: generated -->", "<!-- end of operations -->"


def page(text: str) -> str:
    """Return the page with the table of the current API."""
    head, _, rest = text.partition(BEGIN)
    return "\n".join([head + BEGIN, "", *_table(), "", END + rest.partition(END)[2]])


def _table() -> Iterator[str]:
    yield "| | request | | roles | scope |"
    yield "|---|---|---|---|---|"
    last = ""
    for path, methods in create_api().openapi()["paths"].items():
        for method, operation in methods.items():
            (tag,) = operation["tags"]
            text = " ".join(operation["description"].split())
            roles = operation.get("x-roles", [])
            may = "every" if len(roles) == len(AdminRole) else ", ".join(roles)
            scope = f"`{operation['x-scope']}`" if "x-scope" in operation else ""
            yield (
                f"| {tag if tag != last else ''} | `{method.upper()} {path}` | {text} "
                f"| {may} | {scope} |"
            )
            last = tag


if __name__ == "__main__":
    renew_or_check(PAGE, page(PAGE.read_text()))
