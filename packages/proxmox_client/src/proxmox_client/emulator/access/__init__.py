"""Who may do what: roles, grants and the checks of every endpoint."""
