"""Verified content: the store's port and its local disk, single-flight transfers, the cache.

Nothing here decides who may have what; `serving.pulls` asks only after `serving.trust` allowed it.
"""
