"""From images and captions to the shards of a pool."""
