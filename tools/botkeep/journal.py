"""`memory/bot-operations.md`: the ledger for people, plus their own notes.

The ledger is the truth and is written first; the Markdown is brought up to it, each entry exactly once, by whoever
holds the lock. People edit the file with whatever they like and lock nothing, so:

1. After each write the file's identity (device, inode, size, both times) is kept. While it is the same, new entries
   are appended and nothing is read.
2. Before each write, its place and text are kept. A writer that is killed leaves a tail that is the beginning of that
   text; the next one completes it. Nothing is ever truncated.
3. Any other difference is somebody's edit. The whole file is read, and entries that it misses (an editor saved what it
   had opened before they were written) are added at its end, marked `restored`. Other lines are left as they are.
4. After each write the file at the path must be the one written to, and as long as expected; otherwise somebody saved
   meanwhile and the file is read again.
5. Past months' sections move, with everything in them, to memory/archive/: first into the archive, then the rest
   replaces the file, unless it changed since it was read. A section that is in the archive already (a kill between the
   two, or an editor that saved it back) adds only those of its lines that the archive does not have.

What was written last is kept in .botkeep/journal.json. It is only ever a help: without it the whole file is read.
"""

from __future__ import annotations

import json
import os
import re
import stat
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from .durable import Lock, fsync_dir, read_json
from .ledger import Entry, Kind, Ledger
from .model import BotkeepError, iso
from .untrusted import clean, escape_markdown
from .workspace import Workspace

EMPTY = """\
# Bot operations

What botkeep saw and did: one line for each entry, the newest last. Past months move to `archive/`.
Write your own lines anywhere. They are never changed, and a line of botkeep's that gets lost in an edit comes back.
To see whether an entry was changed, removed or forged: `botkeep journal --verify`
"""
