"""Selections: which pairs a recipe keeps, why, how surely, and how they leave."""
