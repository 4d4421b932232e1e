"""What clusters can be asked for as rows: one declaration per table, read by tools and queries."""
