"""The embedded authorization server over HTTP."""
