"""The command `pvemcp`: serving and administration."""
