"""The table is made of what the runs left, and of nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from botkeep.runtimes import RUNTIMES
from matrix import table
from matrix.columns import COLUMNS
from matrix.rows import ROWS

PAGE = Path(__file__).parents[2] / "docs/engines.md"


def ran(folder: Path) -> None:
    for row in ROWS:
        for column in COLUMNS:
            table.keep(folder, row.name, column, f"{row.name} | {column}")


def test_every_runtime_is_a_column() -> None:
    assert list(COLUMNS) == list(RUNTIMES)


def test_a_cell_is_what_its_run_said_and_one_that_was_not_run_says_so(tmp_path: Path) -> None:
    table.keep(tmp_path, "killed", "docker", "back in 1.0 s | one")
    head, _, killed, frozen, *rest = table.lines(tmp_path)
    assert head == f"| fault | {' | '.join(COLUMNS)} |"
    assert killed.startswith(r"| killed | not run | back in 1.0 s \| one | not run |")
    assert frozen.count("not run") == len(COLUMNS)
    assert len(rest) == len(ROWS) - 2


def test_a_whole_table_replaces_the_one_before_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}old\n{table.END}\nafter\n")
    ran(tmp_path)
    table.main(tmp_path, page)
    first = page.read_text()
    assert first.startswith(f"before\n{table.BEGIN}| fault |")
    assert first.endswith(f"|\n{table.END}\nafter\n")
    assert "old" not in first
    table.main(tmp_path, page)
    assert page.read_text() == first


@pytest.mark.parametrize("came", [table.NOT_RUN, f"{table.FAILED}: two lived at the same time"])
def test_a_table_with_a_hole_is_printed_and_written_nowhere(tmp_path: Path, came: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{table.BEGIN}old\n{table.END}")
    ran(tmp_path)
    table.keep(tmp_path, "killed", "process", came)
    with pytest.raises(SystemExit, match="left as it is"):
        table.main(tmp_path, page)
    assert "old" in page.read_text()


def test_the_page_has_one_place_for_the_table() -> None:
    text = PAGE.read_text()
    assert (text.count(table.BEGIN), text.count(table.END)) == (1, 1)
