"""What people read of an incident: plain, cleaned, redacted; what is wrong first, then what was done and what waits.

By `templates/alert.txt.j2`, the workspace's own if it has one. The entry's id always follows, whatever a template says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from pathlib import Path

from .alerts import Alert, fault_word
from .model import ActionReport, Result
from .notify import ENTRY, Message
from .templating import render
from .untrusted import clean

TEMPLATE = "alert.txt.j2"
LINE = 900
"""Characters."""
MOST_LINES = 12
TITLE = 120
_SIGNS = {"critical": "\U0001f534", "warning": "\U0001f7e1", "info": "\U0001f535", "resolved": "\u2705"}
"""A red, a yellow, a blue circle; a check mark."""


@dataclass(frozen=True)
class Writer:
    """Writes the messages of one turn of telling; what is wrong with a person's template goes to `problems`."""

    home: Path
    zone: tzinfo
    problems: list[str] = field(default_factory=list)

    def alert(self, alert: Alert, actions: Sequence[ActionReport]) -> Message:
        """An alert, with what was done about it in this round, and until when what may not be done."""
        about = [one for one in actions if one.bot in alert.members and one.sentence != alert.sentence]
        lines = [self._line(one) for one in about[:MOST_LINES]]
        if len(about) > MOST_LINES:
            lines.append(f"and {len(about) - MOST_LINES} more")
        return self._message(alert.severity, "alert", alert.sentence, fault_word(alert), _title(alert), lines)

    def reminder(self, severity: str, sentence: str, number: int) -> Message:
        """That something still stands."""
        return self._message(severity, "reminder", sentence, f"reminder {number}", "botkeep: reminder")

    def resolved(self, sentence: str) -> Message:
        """That it is over."""
        return self._message("resolved", "resolved", sentence, "resolved", "botkeep: resolved")

    def _line(self, report: ActionReport) -> str:
        words = f"{report.action}: {report.result}: {report.sentence}"
        if report.result is Result.REFUSED and report.earliest:
            return f"{words} (not before {report.earliest.astimezone(self.zone):%H:%M %Z})"
        return words

    def _message(
        self, severity: str, kind: str, sentence: str, word: str, title: str, lines: Sequence[str] = ()
    ) -> Message:
        context = {
            "sign": _SIGNS[severity], "severity": severity, "kind": kind, "sentence": sentence, "lines": [*lines],
            "problems": [],
        }  # fmt: skip
        made = render(TEMPLATE, [context], home=self.home, markdown=False)
        if made.problem and made.problem not in self.problems:
            self.problems.append(made.problem)
        return Message(f"{made.text.rstrip()}\n{word} {ENTRY}", clean(title, TITLE), severity)


def _title(alert: Alert) -> str:
    who = ", ".join(alert.members[:3]) + (" ..." if len(alert.members) > 3 else "")
    return f"botkeep: {who}: {fault_word(alert)}" if who else f"botkeep: {fault_word(alert)}"


def plain_message(severity: str, title: str, lines: Sequence[str], attachments: Sequence[str] = ()) -> Message:
    """Any other text of several lines, as it is; cleaned line by line."""
    text = "\n".join(clean(line, LINE) for line in lines)
    return Message(text, clean(title, TITLE), severity, tuple(attachments))
