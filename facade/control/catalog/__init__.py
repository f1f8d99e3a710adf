"""Use cases of the operator's side: browse a registry, import, look after artifacts and fleets.

Knows no aiohttp and no adapter: what it needs comes in as small protocols.
"""
