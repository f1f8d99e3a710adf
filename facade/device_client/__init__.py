"""The reference device client: it trusts its own pinned root, its server's CA, and nothing else."""
