"""Extension point 2: what a data file is written in. One module each; the key is the `kind` of `data_format`."""

from __future__ import annotations

from pathlib import Path

from . import csv
from .base import Format, FormatOptions, Rebuilt, SnapshotCut, TradeTable

FORMATS: dict[str, Format] = {
    csv.KIND: csv,
}


def kind_of(path: Path | None, configured: str = "") -> str:
    """The format of a data file: as configured, or by its ending; csv where neither says."""
    ending = path.suffix.lstrip(".").lower() if path else ""
    return configured or (ending if ending in FORMATS else csv.KIND)


__all__ = ["FORMATS", "Format", "FormatOptions", "Rebuilt", "SnapshotCut", "TradeTable", "kind_of"]
