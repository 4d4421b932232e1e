"""The syntax of names of keys, roles, clusters, tokens and administrators."""

import re

from pvemcp_server.errors import BadArgument

NAME = re.compile(r"[^\W_](?:[\w .@+-]{0,62}[\w@+-])?")


def check_name(name: str, argument: str = "name") -> str:
    """Return the name; raise BadArgument for `argument` when its syntax is wrong."""
    if not NAME.fullmatch(name):
        raise BadArgument(
            argument,
            "1 to 64 letters, digits, spaces or . _ @ + -, starting with a letter or digit.",
        )
    return name
