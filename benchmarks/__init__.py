"""Measurements of speed, memory and accuracy; `python -m benchmarks` prints them as one table."""
