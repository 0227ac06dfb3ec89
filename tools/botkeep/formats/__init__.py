"""Extension point 2: what a data file is written in. One module each; the key is the `kind` of `data_format`."""

from __future__ import annotations

from pathlib import Path

from .base import Appended, Format, FormatOptions, Rebuilt, SnapshotCut, TradeTable
from .later import later

FORMATS: dict[str, Format] = {
    "csv": later("csv", "csv", "tsv"),
    "json": later("json", "json"),
    "jsonl": later("jsonl", "jsonl", "ndjson"),
    "parquet": later("parquet", "parquet", "pq"),
    "sqlite": later("sqlite", "sqlite", "sqlite3", "db"),
}


def kind_of(path: Path | None, configured: str = "") -> str:
    """The format of a data file: as configured, or by its ending; csv where neither says."""
    ending = path.suffix.lstrip(".").lower() if path else ""
    by_ending = {one: kind for kind, known in FORMATS.items() for one in known.ENDINGS}
    return configured or by_ending.get(ending, "csv")


__all__ = ["FORMATS", "Appended", "Format", "FormatOptions", "Rebuilt", "SnapshotCut", "TradeTable", "kind_of"]
