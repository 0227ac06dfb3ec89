"""`botkeep report`: the report in the format that is asked for, printed or written to a file, with its pictures."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from .durable import write_atomic
from .model import BotkeepError, UsageError

if TYPE_CHECKING:
    from .rounds import Desk

ENDINGS = {".txt": "text", ".md": "markdown", ".json": "json", ".html": "html", ".htm": "html"}


def kind_of(out: Path | None) -> str:
    """The format that a file's ending says; text without a file. Raises UsageError for another ending."""
    if out is None:
        return "text"
    if out.suffix.lower() not in ENDINGS:
        known = ", ".join(ENDINGS)
        raise UsageError(f"{out.name}: its ending says no format. Use one of {known}, or name one with --format.")
    return ENDINGS[out.suffix.lower()]


def made(desk: Desk, since: datetime, kind: str, *, charts: Path | None = None) -> tuple[str, list[Path]]:
    """The report on [since, now) as `text`, `markdown`, `json` or `html`, and the pictures that were drawn."""
    report = desk.report(since)
    if kind == "json":
        from .report_document import full_document

        text = full_document(report, desk.report_told(report), desk.zone()).model_dump_json(indent=2)
    else:
        text = desk.report_told(report, "plain" if kind == "text" else kind)
    if charts is None:
        return text, []
    from .report_pictures import pictures

    return text, pictures(report, charts, desk.zone())


def save(text: str, out: Path) -> None:
    """Write it for its owner alone: it tells what somebody earns. Raises UsageError, BotkeepError."""
    if out.exists() and not out.is_file():
        raise UsageError(f"{out} is no file, so no report is written there. Name a file.")
    try:
        write_atomic(out, text.encode("utf-8", "replace"), 0o600)
    except OSError as error:
        raise BotkeepError(
            f"The report cannot be written to {out}: {error.strerror}. Mend that, and ask again."
        ) from error
