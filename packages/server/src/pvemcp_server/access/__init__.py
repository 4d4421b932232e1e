"""Who may do what: callers, roles and what they reach."""
