"""Figures and traces of this server for Prometheus and OpenTelemetry; both are off by default."""
