"""Write tests/contracts/<Tool>.json: each tool as clients see it, so that a change is a diff.

python scripts/make_contracts.py           renew them
python scripts/make_contracts.py --check   fail when one is not current
"""

import json
import sys
from pathlib import Path

import mcp_types as types

import pvemcp_server.tools.all  # noqa: F401 - declares the tools
from pvemcp_server.mcp.tools import describe
from pvemcp_server.toolkit.registry import tools

FOLDER = Path(__file__).parents[1] / "tests" / "contracts"


def contracts() -> dict[str, str]:
    """Return the contracts by file name."""
    return {f"{name}.json": _text(describe(tool)) for name, tool in tools().items()}


def main() -> None:
    wanted = contracts()
    there = {path.name: path.read_text() for path in FOLDER.glob("*.json")}
    if "--check" in sys.argv[1:]:
        wrong = sorted(name for name in wanted | there if wanted.get(name) != there.get(name))
        sys.exit(f"Not current: {', '.join(wrong)}; run make contracts." if wrong else 0)
    for name in there.keys() - wanted.keys():
        (FOLDER / name).unlink()
    for name, text in wanted.items():
        (FOLDER / name).write_text(text)


def _text(shown: types.Tool) -> str:
    sent = shown.model_dump(mode="json", by_alias=True, exclude_none=True)
    return json.dumps(sent, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()
