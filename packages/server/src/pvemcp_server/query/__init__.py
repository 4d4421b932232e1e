"""Queries over all tables: parsed, bound to the declarations, answered by SQLite."""
