"""How the state looks in answers."""
