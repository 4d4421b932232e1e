"""Parameters of requests of OAuth, in the query of a URL or in a form."""

from collections.abc import Mapping
from urllib.parse import parse_qsl

from pvemcp_server.errors import OAuthError


def parameters_in(text: str | bytes, *, most: int) -> dict[str, str]:
    """Return the parameters; raise OAuthError for repeated ones (OAuth 2.1, 3.1), or too many.

    Empty ones count as omitted (RFC 6749, 3.1 and 3.2).
    """
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        pairs = parse_qsl(decoded, errors="strict", max_num_fields=most)
    except ValueError:
        raise OAuthError("invalid_request", "The parameters cannot be read.") from None
    parameters = dict(pairs)
    if len(parameters) != len(pairs):
        raise OAuthError("invalid_request", "A parameter must not be repeated.")
    return parameters


def required(parameters: Mapping[str, str], name: str) -> str:
    """Return a parameter; raise OAuthError without it."""
    if name not in parameters:
        raise OAuthError("invalid_request", f"{name} is missing.")
    return parameters[name]
