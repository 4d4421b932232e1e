"""The work behind the API's changes, mostly as tasks with a log, a duration and an outcome."""
