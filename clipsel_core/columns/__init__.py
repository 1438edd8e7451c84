"""Columns: one value a pair, whoever computed it."""
