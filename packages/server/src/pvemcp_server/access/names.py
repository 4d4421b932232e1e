"""What the names of keys, roles, clusters, tokens and administrators may look like."""

import re

from pvemcp_server.errors import BadArgument

NAME = re.compile(r"[^\W_](?:[\w .@+-]{0,62}[\w@+-])?")


def check_name(name: str, argument: str = "name") -> str:
    """The name, when it can be shown, typed and sorted without surprises."""
    if not NAME.fullmatch(name):
        raise BadArgument(
            argument,
            "1 to 64 letters, digits, spaces or . _ @ + -, beginning with a letter or digit.",
        )
    return name
