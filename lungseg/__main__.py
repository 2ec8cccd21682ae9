"""`python -m lungseg` and the command `lungseg`."""

import sys

from lungseg.system.interrupts import Interrupted, raise_on_signals


def main() -> None:
    """Run the command line. Signals are handled before it is imported, which takes a moment."""
    raise_on_signals()
    try:
        from lungseg.cli import main as run
    except Interrupted as stopped:
        sys.exit(stopped.exit_code)
    run()


if __name__ == "__main__":
    main()
