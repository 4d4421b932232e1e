"""The one pipeline of every call: find, authorize, validate, confirm, audit, run, encode."""
