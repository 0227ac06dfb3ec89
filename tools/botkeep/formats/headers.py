"""The header of a file against the one that it had before: lost, or with other columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import columns
from .base import FormatOptions
from .records import Kind, Reader, evidence

NEEDED = ("time", "symbol", "side", "price", "amount", "pnl")
"""Roles without which trades cannot be told any more."""


@dataclass(frozen=True)
class Change:
    """What became of a header."""

    lost: bool = False
    text: str = ""
    unfit: bool = False
    """Columns that are needed are gone."""


def header_of(reader: Reader | None) -> str:
    """The header line; empty: the file has none, or is of a kind that has none."""
    return str(reader.as_json().get("header", "")) if reader else ""


def misnamed(reader: Reader | None, options: FormatOptions) -> str:
    """Which column of the configuration the file has not: a sentence; empty: none, or its columns are not known."""
    layout = reader.as_json() if reader and options.columns else {}
    if "header" not in layout:
        return ""
    return columns.misnamed(options.columns, layout["names"]) or _no_numbers(layout, options)


def _no_numbers(layout: Mapping[str, Any], options: FormatOptions) -> str:
    """A column that was named for a price, and holds words, would make every row a trade that nobody can read."""
    for role in columns.NUMBERS:
        if role in options.columns and layout["sample"] and layout["roles"].get(role) not in layout["numbers"]:
            name = options.columns[role]
            return f"data_format.columns.{role} names {name!r}, and what is in that column is no numbers."
    return ""


def headless(kind: Kind, known: Reader, first: bytes, options: FormatOptions) -> Reader | None:
    """A reader in the known layout for a file that begins with the row `first` where its header was; None: no row."""
    again = kind.again({**known.as_json(), "header": "", "body": 0}, options)
    return again if again.flaw(first)[0] is None else None


def change(old: Mapping[str, Any], new: Mapping[str, Any]) -> Change | None:
    """What became of a header, from the layouts of before and now. None: nothing that matters."""
    if not old.get("header"):
        return None
    if not new.get("header"):
        return Change(lost=True)
    before, after = [str(name).strip() for name in old["names"]], [str(name).strip() for name in new["names"]]
    if before == after:
        return None
    gone = [name for name in before if name not in after]
    fresh = [name for name in after if name not in before]
    needed = {before[column] for role, column in old["roles"].items() if role in NEEDED}
    told = [*(f"without {_names(gone)}" for _ in gone[:1]), *(f"with {_names(fresh)}" for _ in fresh[:1])]
    text = f"Its header is another one: {' and '.join(told) or 'in another order'}. A restore is not made for that."
    return Change(text=text, unfit=bool(needed & set(gone)))


def _names(names: list[str]) -> str:
    shown = ", ".join(evidence(name.encode("utf-8", "backslashreplace"), 40) for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
