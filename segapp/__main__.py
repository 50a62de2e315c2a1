"""`segapp TOOL ...`, the console script, and `python -m segapp TOOL ...`."""

import sys

import segapp.base.quiet_start  # noqa: F401


def main() -> int:
    """Returns the exit status. Nothing heavy is imported before Ctrl-C is quiet."""
    from segapp.cli import main

    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
