"""One factory a format; the keys are those of `FORMATS`."""

from __future__ import annotations

from support.formats import csv, json, jsonl, parquet, sqlite
from support.formats.base import Files

FACTORIES: dict[str, Files] = {
    "csv": csv.FILES,
    "json": json.FILES,
    "jsonl": jsonl.FILES,
    "parquet": parquet.FILES,
    "sqlite": sqlite.FILES,
}
