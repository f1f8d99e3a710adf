"""Facade: the device-facing door of a fleet-update platform."""

__version__ = "0.1.0"
