"""Building blocks of tools: registry, call, plan, lists, arguments, privileges."""
