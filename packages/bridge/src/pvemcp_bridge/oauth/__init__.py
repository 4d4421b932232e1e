"""Sign-in with OAuth 2.1: the user's own account instead of an API key."""
