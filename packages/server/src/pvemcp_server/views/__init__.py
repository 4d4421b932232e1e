"""Views: pages that clients with MCP Apps show beside the answer of a tool."""
