"""Files: finds, checks and reads a pool's shards."""
