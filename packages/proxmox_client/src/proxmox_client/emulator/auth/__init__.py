"""How callers prove who they are: tickets, tokens and second factors."""
