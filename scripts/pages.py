"""What the scripts of generated pages share."""

import sys
from pathlib import Path


def renew_or_check(page: Path, content: str) -> None:
    """Write the page; with --check, fail where it is not current."""
    if "--check" not in sys.argv[1:]:
        page.write_text(content)
    elif not page.exists() or page.read_text() != content:
        raise SystemExit(f"docs/{page.name} is not current; run make docs.")
