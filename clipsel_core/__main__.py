"""Lets `python -m clipsel_core` run the command line."""

from clipsel_core.cli import main

if __name__ == "__main__":
    main()
