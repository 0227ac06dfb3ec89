"""Where the `botkeep` command and `python -m botkeep` begin."""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    """Run the command line and end the process with its exit code."""
    gc.disable()  # while importing: nothing is garbage yet, and looking for it takes a tenth of a cold check
    from .cli import main as run

    code = run(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)  # tearing down the interpreter takes longer than a check of one bot; everything is closed by now


if __name__ == "__main__":
    main()
