"""Extension point 2: what a data file is written in. One module each; the key is the `kind` of `data_format`."""

from __future__ import annotations

from pathlib import Path

from . import csv, json, jsonl, parquet, sqlite
from .base import Appended, Format, FormatOptions, Rebuilt, SnapshotCut, TradeTable

FORMATS: dict[str, Format] = {
    csv.KIND: csv,
    json.KIND: json,
    jsonl.KIND: jsonl,
    parquet.KIND: parquet,
    sqlite.KIND: sqlite,
}


def kind_of(path: Path | None, configured: str = "") -> str:
    """The format of a data file: as configured, or by its ending; csv where neither says."""
    ending = path.suffix.lstrip(".").lower() if path else ""
    by_ending = {one: kind for kind, known in FORMATS.items() for one in known.ENDINGS}
    return configured or by_ending.get(ending, csv.KIND)


__all__ = ["FORMATS", "Appended", "Format", "FormatOptions", "Rebuilt", "SnapshotCut", "TradeTable", "kind_of"]
