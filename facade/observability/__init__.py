"""Metrics, logs, health and the port that shows them. Use cases never import this package."""
