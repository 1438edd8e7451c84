"""The demo world: drawn pairs, a small teacher, a finished run."""
