"""Recipes: what their steps mean, and how they are read, written, linked and compared."""
