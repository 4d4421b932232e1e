"""Generated parts of documentation pages."""

import re
from pathlib import Path


def renew_or_check(page: Path, name: str, content: str, arguments: list[str]) -> None:
    """Print the content, write it between the marks in the page, or fail if the page differs."""
    if not arguments:
        print(content)
        return
    part = re.compile(rf"(<!-- {name}: generated -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    old = page.read_text()
    new = part.sub(lambda match: f"{match[1]}\n{content}\n\n{match[2]}", old)
    if "--write" in arguments:
        page.write_text(new)
    elif new != old or not part.search(old):
        raise SystemExit(f"{page.name}: the part {name!r} is not current; update it with --write")
