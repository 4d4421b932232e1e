"""Counts the tokens (o200k) of tools/list, as clients with a new key of each role receive it.

    python benchmarks/tools_tokens.py            print the table
    python benchmarks/tools_tokens.py --write    renew it in docs/contributors/protocol.md
    python benchmarks/tools_tokens.py --check    fail when the page is not current

Fails when a list is larger than its bar: 9,000 tokens for a new key of an administrator, in
proportion for one that lists fewer tools, and 12,000 with every toolset.
"""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pvemcp_server.tools.all  # noqa: F401 - declares the tools
from pvemcp_server.access.model import Caller, Role, Toolset
from pvemcp_server.access.roles import ADMINISTRATOR, BUILT_IN
from pvemcp_server.mcp.tools import visible_tools
from pvemcp_server.toolkit.registry import tools
from support.in_docs import renew_or_check

REPOSITORY = Path(__file__).parents[1]
PAGE = REPOSITORY / "docs" / "contributors" / "protocol.md"
PEER = REPOSITORY / "tests" / "npm" / "peer.mjs"
BAR = 9_000
BAR_OF_EVERYTHING = 12_000
sys.path.insert(0, str(REPOSITORY / "scripts"))


def listed(caller: Caller) -> list[str]:
    """Return each tool as JSON, as it is sent."""
    return [
        json.dumps(one.model_dump(by_alias=True, exclude_none=True), separators=(",", ":"))
        for one in visible_tools(tools(), caller)
    ]


def count_tokens(texts: list[str]) -> list[int]:
    from node_tools import installed, node

    orders = "\n".join(json.dumps({"work": "tokens", "input": text}) for text in texts)
    command = [str(node()), str(PEER), str(installed())]
    done = subprocess.run(command, input=orders, capture_output=True, text=True, check=True)
    return [json.loads(line)["output"] for line in done.stdout.splitlines()]


def main() -> None:
    roles = {name: Role(0, name, text, (grant,)) for name, text, grant in BUILT_IN}
    keys = {name: Caller(key_id="x", key_name="x", role=role) for name, role in roles.items()}
    most = len(listed(keys[ADMINISTRATOR]))
    everything = f"{ADMINISTRATOR}, every toolset"
    keys[everything] = replace(keys[ADMINISTRATOR], toolsets=frozenset(Toolset))
    lines = ["| key | tools | bytes | tokens | bar |", "|---|---|---|---|---|"]
    too_large = []
    for name, caller in keys.items():
        found = listed(caller)
        text = '{"tools":[' + ",".join(found) + "]}"
        [tokens] = count_tokens([text])
        bar = BAR_OF_EVERYTHING if name == everything else BAR * len(found) // most
        lines.append(f"| {name} | {len(found)} | {len(text)} | {tokens} | {bar} |")
        too_large += [name] if tokens > bar else []
    renew_or_check(PAGE, "tokens", "\n".join(lines), sys.argv[1:])
    if too_large:
        raise SystemExit(f"too many tokens: {', '.join(too_large)}")


if __name__ == "__main__":
    main()
