"""Tasks: what takes its time, writes a log and may fail."""
