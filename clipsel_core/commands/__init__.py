"""The commands, a file to a family; cli.py puts them together. Each calls one function of the core."""
