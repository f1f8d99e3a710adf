"""What may be served to whom: verified metadata, closures, and the decision."""
