"""Lets `python -m clipsel_core` run the command line; an interruption while it loads is one line, too."""

import sys


def main() -> None:
    """Loads and runs the command line."""
    try:
        from clipsel_core.cli import run

        run()
    except KeyboardInterrupt:
        print("interrupted; start it again to go on", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
