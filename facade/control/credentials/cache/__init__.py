"""Implementations of `control.credentials.tokens.TokenCache`."""
