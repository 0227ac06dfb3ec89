"""Where the `botkeep` command and `python -m botkeep` begin."""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    """Run the command line and end the process with its exit code."""
    # Looking through every installed package for pydantic plug-ins takes a sixth of a cold check, and there are none.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    gc.disable()  # while importing: nothing is garbage yet
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"  # looking for some reads every installed package's metadata
    try:
        from .cli import main as run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    sys.stderr.flush()
    os._exit(code)  # to take the interpreter apart takes longer than to look at a bot; everything is closed by now


if __name__ == "__main__":
    main()
