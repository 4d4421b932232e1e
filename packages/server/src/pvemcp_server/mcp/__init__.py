"""The Model Context Protocol: server, sessions, tasks, prompts, resources, notifications."""
