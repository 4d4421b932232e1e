"""Set the version of all four packages: `python scripts/set_version.py 0.3.0`.

The packages' own metadata is the one place of the version: programs, pages, bundles and the Debian
package read it from there. The server accepts its sibling packages of its own minor version.
"""

import re
import sys
from pathlib import Path

PACKAGES = Path(__file__).resolve().parents[1] / "packages"
VERSION = re.compile(r"(\d+)\.(\d+)\.\d+")


def with_version(text: str, version: str) -> str:
    """Return the pyproject.toml of a package with this version and the ranges of its siblings."""
    numbers = VERSION.fullmatch(version)
    if numbers is None:
        raise SystemExit(f"{version!r} is no version like 0.3.0")
    major, minor = map(int, numbers.groups())
    siblings = f">={major}.{minor},<{major}.{minor + 1}"
    text = re.sub(r'^version = ".*"$', f'version = "{version}"', text, count=1, flags=re.MULTILINE)
    return re.sub(r'("pvemcp-\w+(?:\[\w+\])?)[<>=][^"]*"', rf'\1{siblings}"', text)


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: python scripts/set_version.py VERSION")
    for file in sorted(PACKAGES.glob("*/pyproject.toml")):
        file.write_text(with_version(file.read_text(), sys.argv[1]))
        print(f"{file.parent.name}: {sys.argv[1]}")
    print("Now: make install, and a heading in CHANGELOG.md.")


if __name__ == "__main__":
    main()
