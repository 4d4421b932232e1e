"""Authentication: tickets, API tokens and second factors."""
