"""The composition root: Settings → wired objects → web applications, and their clean-up in order.

The only place that names concrete adapters. `serving` and `control` wire a wing each, `node` joins
them in one process. No decisions are made here.
"""
