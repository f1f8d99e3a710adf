"""Configuration: `settings` (the keys), `sources` (file and environment), `reference` (the manual)."""

from facade.config.reference import reference
from facade.config.settings import Settings, parse_listen
from facade.config.sources import load

__all__ = ["Settings", "load", "parse_listen", "reference"]
