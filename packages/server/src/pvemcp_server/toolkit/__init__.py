"""What tools are made of: registry, call, plan, lists, arguments, privileges."""
