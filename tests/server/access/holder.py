"""Another process of the server, for `test_processes.py`: authenticates a key again and again.

It reads the key from its input and prints a line whenever the result changes.
"""

import sys

import anyio

from pvemcp_server.access import open_access
from pvemcp_server.config import Config
from pvemcp_server.errors import AccessDenied
from pvemcp_server.store import open_store


async def main() -> None:
    secret, before = sys.stdin.readline().strip(), ""
    async with open_store(Config.load()) as store, open_access(store) as access:
        while True:
            try:
                answer = (await access.authenticator.authenticate(secret, "192.0.2.1")).role.name
            except AccessDenied as denied:
                answer = denied.reason
            if answer != before:
                before = answer
                sys.stdout.write(f"{answer}\n")
                sys.stdout.flush()
            await anyio.sleep(0.05)


if __name__ == "__main__":
    anyio.run(main)
