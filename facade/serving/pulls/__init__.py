"""The use cases of a pull: authorise, locate, stream. No HTTP types, no aiohttp."""
