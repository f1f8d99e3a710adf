"""Configuration: `settings` (the keys), `sources` (file and environment), `reference` (the manual).

The last two are not loaded here: a serving process is told its settings and reads neither.
"""

from facade.config.settings import Settings, parse_listen

__all__ = ["Settings", "parse_listen"]
