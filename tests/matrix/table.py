"""The matrix as a table: what `make matrix` prints, and what `make matrix-docs` puts into docs/engines.md.

`table.py FOLDER [FILE]`. A cell is one file of the folder, written by the run that was that cell.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from matrix.columns import COLUMNS
from matrix.rows import ROWS

BEGIN, END = "<!-- botkeep:matrix -->\n", "<!-- /botkeep:matrix -->"
NOT_RUN, FAILED = "not run", "FAILED"


def keep(folder: Path, fault: str, column: str, came: str) -> None:
    """What came of a cell."""
    _file(folder, fault, column).write_text(came)


def _file(folder: Path, fault: str, column: str) -> Path:
    return folder / f"{fault.replace(' ', '-')}.{column}.txt"


def lines(folder: Path) -> list[str]:
    """The table in Markdown."""
    head = ["fault", *COLUMNS]
    return [_row(head), _row(["---"] * len(head)), *(_row([row.name, *_cells(folder, row.name)]) for row in ROWS)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(folder: Path, fault: str) -> list[str]:
    files = [_file(folder, fault, column) for column in COLUMNS]
    return [file.read_text().replace("|", r"\|") if file.exists() else NOT_RUN for file in files]


def fill(page: Path, rows: Sequence[str]) -> None:
    """Replace what stands between the markers. Raises SystemExit where there is no pair of them."""
    text = page.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        sys.exit(f"{page} needs one pair of markers: {BEGIN.strip()} and {END}")
    before, rest = text.split(BEGIN)
    page.write_text(before + BEGIN + "\n".join(rows) + "\n" + END + rest.split(END)[1])


def main(folder: Path, page: Path | None = None) -> None:
    """Print the table; write it into the page, if there is one and every cell of it was run and held."""
    rows = lines(folder)
    print("\n".join(rows))
    if page is None:
        return
    if any(NOT_RUN in row or FAILED in row for row in rows):
        sys.exit(f"{page} is left as it is: a cell failed, or was not run")
    fill(page, rows)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
