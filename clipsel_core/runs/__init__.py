"""A run: one scoring of one pool, in a folder, resumable."""
