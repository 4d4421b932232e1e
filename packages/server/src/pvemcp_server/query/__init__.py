"""Questions over all tables: read, checked against what is declared, answered by SQLite."""
