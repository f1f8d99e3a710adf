"""The aiohttp application of the mTLS port: thin handlers over `serving.pulls`."""
