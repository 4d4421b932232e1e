"""OAuth: the clients, scopes and tokens of the connections of users."""
