"""Where pairs come from before they are a pool: one module a kind of source."""
