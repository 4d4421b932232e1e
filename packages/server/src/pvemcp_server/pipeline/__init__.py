"""The pipeline of every tool call, from its name to its answer and its record in the audit."""
