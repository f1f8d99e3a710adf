"""Devices as the operator sees them: development certificates, and the deny list."""
