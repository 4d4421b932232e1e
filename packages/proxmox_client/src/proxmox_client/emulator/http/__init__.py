"""The HTTP server of pveproxy: its status lines, connection limits and error responses."""
