"""Every fault on every engine: each cell is a real run, and is judged by what ran then."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from matrix import table
from matrix.columns import COLUMNS
from matrix.rows import ROWS, Row

RESULTS = os.environ.get("BOTKEEP_MATRIX")


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_a_fault_ends_as_its_playbook_says(row: Row, column: str, tmp_path: Path) -> None:
    try:
        came = row.run(tmp_path / "home", COLUMNS[column])
    except Exception as error:
        _keep(row, column, f"{table.FAILED}: {(str(error).splitlines() or [type(error).__name__])[0]}")
        raise
    _keep(row, column, came)


def _keep(row: Row, column: str, came: str) -> None:
    if RESULTS:
        table.keep(Path(RESULTS), row.name, column, came)
