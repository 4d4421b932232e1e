"""The admin REST API: the administration, as JSON, with its own OpenAPI."""
