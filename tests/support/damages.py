"""The table of damages, the cases that were made of it, and a real file for each of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from botkeep.formats import FORMATS, FormatOptions, TradeTable
from botkeep.formats.base import inspect_whole
from botkeep.model import DataVerdict, Inspection
from support.real_files import REAL_FILES

ROWS = {
    "C1": "torn last line",
    "C2": "NUL run",
    "C3": "header lost or changed",
    "C4": "wrong column count",
    "C5": "stray quote",
    "C6": "mixed encodings, BOM, UTF-16",
    "C7": "duplicates",
    "C8": "out-of-order time",
    "C9": "bad numbers",
    "C10": "truncated to zero, shrunk",
    "C11": "replaced by a web page or JSON",
    "C12": "interleaved writers",
    "C13": "same-length overwrite",
    "C14": "file gone, another inode",
    "C15": "EACCES",
    "J1": "JSON lines torn or glued",
    "J2": "NaN, 1e999, duplicate keys, BOM in JSON",
    "Q1": "SQLite malformed",
    "Q2": "SQLite locked",
    "Q3": "WAL missing",
    "Q4": "hot journal",
    "Q5": "zero length, wrong schema",
    "Q6": "silent cell change",
    "Q7": "another version's schema",
    "P1": "Parquet truncated or open",
    "P2": "Parquet bit rot",
    "D01": "torn tail, writer dead",
    "D02": "torn tail, writer alive",
    "D03": "rewrite storm",
    "D04": "truncated to 0, writer dead",
    "D05": "NUL tail",
    "D06": "NUL in the middle",
    "D07": "header lost",
    "D08": "one bad row among many",
    "D10": "cp1252 byte, UTF-16, BOM",
    "D11": "duplicates with the same trade id",
    "D13": "out of order by 2 s and by 2 h",
    "D15": "inf, NaN, 1_000, full-width digits",
    "D17": "HTML 502 page",
    "D18": "two writers interleaved",
    "D21": "10 rows deleted in the middle",
    "D22": "stale file, quiet market",
    "D23": "deleted while its writer holds it",
    "D24": "EACCES",
    "D25": "JSON lines glued, torn, NaN, duplicate key",
    "D26": "SQLite page zeroed, half, HTML",
    "D27": "SQLite 0 bytes",
    "D28": "-wal deleted after kill -9",
    "D29": "hot journal after kill -9",
    "D30": "locked for minutes",
    "D31": "column added by an upgrade",
    "D32": "ENOSPC while the bot writes",
    "D33": "Parquet open, truncated, flipped",
}
"""The table of damages (C, J, Q, P: CONTRIBUTING) and the ways in which they were made (D)."""

KINDS = ("csv", "jsonl", "json", "sqlite", "parquet")

_TEXT = "a database and Parquet have no lines"
_TREE = "the file is one value that is written whole: it has no lines"
_ONLY_JSON = "is about JSON"
_ONLY_SQLITE = "is about SQLite"
_ONLY_PARQUET = "is about Parquet"
_ATOMIC = "a row is written in a transaction, or not at all"
NOT_HERE: dict[str, dict[str, str]] = {
    "C1": {"sqlite": "has no lines; half a database is Q1", "parquet": "has no lines; a file without its end is P1"},
    "C3": {
        "jsonl": "every line names its own values",
        "json": "every element names its own values",
        "sqlite": "the schema is the header: Q7",
    },
    "C4": {
        "jsonl json": "values have names: a missing one is C9",
        "sqlite parquet": "every row has the columns of its table",
    },
    "C5": {"jsonl json": "a quote that is not closed is J1", "sqlite parquet": "there are no quotes"},
    "C6": {"json": "as JSON lines, read by the same decoder", "sqlite parquet": "the encoding is a part of the file"},
    "C7": {"sqlite": "a primary key stands once"},
    "C8": {"sqlite": "rows have no order but that of their ids"},
    "C9": {"sqlite": "a column has a type; a value of another one is counted and left out when trades are read"},
    "C12": {"json": _TREE, "sqlite": "two writers wait for each other's locks", "parquet": "the last one wins: C10"},
    "D32": {
        "jsonl": "as csv: one reader",
        "json parquet": "is written anew and in part: J1, P1, and pending while its bot lives",
    },
    "D07": {"jsonl json": "every row names its own values", "sqlite": "the schema is the header: Q7"},
    "D02": {"sqlite": _ATOMIC + ": D29, D30"},
    "D03": {"sqlite": "no bot writes a database anew"},
    "D05": {"sqlite": "SQLite never reads behind its last page", "parquet": "hides the footer: P1"},
    "D06": {"sqlite": "a zeroed page: Q1, D26", "parquet": "a zeroed page: P2"},
    "D08": {
        "jsonl": "as csv: one reader", "json": "is parsed whole: C9", "sqlite": "is C9", "parquet": "is C9",
    },
    "D23": {"json parquet": "is closed as soon as it is written: nobody holds it"},
    "C2": {"sqlite": "a zeroed page: Q1, D26"},
}  # fmt: skip
for _rows, _kinds, _why in (
    ("J1 J2 D25", "csv sqlite parquet", _ONLY_JSON),
    ("Q1 Q2 Q3 Q4 Q5 Q6 Q7 D26 D27 D28 D29 D30", "csv jsonl json parquet", _ONLY_SQLITE),
    ("P1 P2 D33", "csv jsonl json sqlite", _ONLY_PARQUET),
    ("D01", "sqlite", _ATOMIC),
    ("D01", "parquet", "a file without its end is P1"),
    ("C13", "json", "is written anew with every trade, and any of them may be changed: only lost ones can be told"),
    ("D10", "json sqlite parquet", "as C6"),
    ("D11", "sqlite", "as C7"),
    ("D13", "sqlite", "as C8"),
    ("D15", "sqlite", "as C9"),
    ("D18", "json sqlite parquet", "as C12"),
):
    for _row in _rows.split():
        NOT_HERE.setdefault(_row, {})[_kinds] = _why

Test = TypeVar("Test", bound=Callable[..., None])
COVERED: set[tuple[str, str]] = set()


def damage(rows: str, kinds: str) -> Callable[[Test], Test]:
    """This test is the case of these rows of the table in these formats."""

    def mark(test: Test) -> Test:
        COVERED.update((row, kind) for row in rows.split() for kind in kinds.split())
        return pytest.mark.parametrize("kind", kinds.split())(test)  # type: ignore[no-any-return]

    return mark


def also(rows: str, kinds: str) -> Callable[[Test], Test]:
    """It is the case of these rows too."""

    def mark(test: Test) -> Test:
        COVERED.update((row, kind) for row in rows.split() for kind in kinds.split())
        return test

    return mark


class Case:
    """A file with a backup of its first rows."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.real, self.kind, self.folder = REAL_FILES[kind], FORMATS[kind], folder
        self.path, self.good = folder / self.real.name, folder / "backup" / self.real.name
        self.good.parent.mkdir()
        self.options = FormatOptions()
        self.real.write(self.path, self.real.kept)
        self.mark = json.loads(json.dumps(dict(self.kind.snapshot(self.path, self.good, options=self.options).mark)))
        self.real.write(self.path, self.real.rows)
        self.now, self.cursor = datetime.now(UTC) + timedelta(seconds=10), None
        self.whole = self.table()
        assert self.look(writing=True).verdict is DataVerdict.OK

    def look(self, *, writing: bool = False, after: float = 0.0) -> Inspection:
        """As a round does, `after` seconds after the one before."""
        self.now += timedelta(seconds=after)
        seen = self.kind.inspect(self.path, options=self.options, cursor=self.cursor, writing=writing, now=self.now)
        self.cursor: dict[str, Any] | None = json.loads(json.dumps(seen.cursor))
        return seen

    def table(self, path: Path | None = None) -> TradeTable:
        """Its trades."""
        return self.kind.trades(path or self.path, options=self.options)

    def corrupt(self, *rules: str, alive: str = "suspect pending") -> Inspection:
        """Not yet certain while its bot lives, certain once nobody writes to it any more."""
        seen = self.look(writing=True)
        assert seen.verdict.value in alive.split(), seen
        seen = self.look(after=31)
        assert (seen.verdict, seen.findings[0].rule in rules, seen.findings[0].certain) == (
            DataVerdict.CORRUPT, True, True,
        ), seen  # fmt: skip
        return seen

    def noted(self, rule: str) -> None:
        """Something to know, and no damage."""
        for writing in (True, False):
            seen = self.look(writing=writing, after=31)
            assert seen.verdict is DataVerdict.OK, seen
            assert [one.rule for one in seen.findings if not one.certain] == [rule], seen

    def saves(self, lost: Iterable[int] = ()) -> None:
        """The rebuilt file has every row, in its true content, but those that were lost: counted from 0."""
        gone = {row for row in lost if row >= self.real.kept}
        assert trades_of(self.rebuilt()) == trades_of(self.whole, without=gone)

    def unseen(self, rows: int) -> None:
        """As if nobody had looked since there were only so many rows."""
        whole = self.path.read_bytes()
        self.real.write(self.path, rows)
        self.cursor = None
        assert self.look(writing=True).verdict is DataVerdict.OK
        self.path.write_bytes(whole)

    def rebuilt(self) -> TradeTable:
        """From the backup and what can be used of the damaged file; it is sound."""
        target = self.folder / "new" / self.real.name
        target.parent.mkdir(exist_ok=True)
        made = self.kind.rebuild(self.good, self.path, target, options=self.options)
        assert made.kept + made.replaced >= self.real.kept
        assert inspect_whole(self.kind, target, options=self.options, now=self.now).verdict is DataVerdict.OK
        return self.table(target)

    def at_least_the_backup(self) -> int:
        """How many trades; which of the newer ones depends on the pages that were hit."""
        found = trades_of(self.rebuilt())
        assert trades_of(self.table(self.good)) <= found <= trades_of(self.whole) | trades_of(self.table(self.good))
        return len(found)

    def lines(self) -> list[bytes]:
        """Of a text file, each with its end; a header is none of them."""
        found = self.path.read_bytes().splitlines(keepends=True)
        return found[1:] if self.real.kind == "csv" else found

    def put(self, lines: list[bytes]) -> None:
        """The text file with these lines, in its place."""
        head = self.path.read_bytes().splitlines(keepends=True)[:1] if self.real.kind == "csv" else []
        self.path.write_bytes(b"".join([*head, *lines]))

    def change(self, row: int, old: str, new: str) -> None:
        """Something in one row, as an editor does."""
        lines = self.lines()
        assert old.encode() in lines[row], lines[row]
        lines[row] = lines[row].replace(old.encode(), new.encode(), 1)
        self.put(lines)

    def elements(self) -> list[dict[str, Any]]:
        """Of a JSON file."""
        found: list[dict[str, Any]] = json.loads(self.path.read_text())
        return found

    def dump(self, elements: list[dict[str, Any]]) -> None:
        """The JSON file, as the bot writes it."""
        self.path.write_text(json.dumps(elements, indent=1))


def trades_of(table: TradeTable, without: Iterable[int] = ()) -> set[Any]:
    """What a file says, whatever its order; without the rows of these numbers, of a database: those with these ids."""
    gone = set(without)
    if table.kind == "fills":
        return {fill for row, fill in enumerate(table.fills) if row not in gone}
    return {trade for trade in (*table.closed, *table.open) if int(trade.id) - 1 not in gone}


@contextmanager
def program(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A bot of a few lines: it prints `ready` when it has done its work, and lives on."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()
