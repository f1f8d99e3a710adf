"""Serving processes under `facade up`: started, watched, replaced, drained, asked."""
