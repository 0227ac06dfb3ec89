"""When a log line was written: the common ways in which programs date their lines, in the bot's own time zone."""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo

LOOK_AT = 80
"""Bytes: a line's date stands at its beginning, or it is no date of the line."""
JSON_LOOK_AT = 512
AHEAD = 60.0
"""Seconds that a line may be ahead of our clock: another machine's, or a rounded one."""
BACKWARDS = 120.0
"""Seconds by which successive lines may be out of order before an hour that occurs twice is taken as the second."""

# What may stand before the date: a colour, a bracket, a level, or the name that a collector puts there (`web-1  | `).
_BEFORE = (
    rb"""\A\s{0,4}(?:\x1b\[[\d;]{0,12}m){0,4}(?:[\w.-]{1,40}[ ]{1,12}\|[ ]{1,4})?(?:[\[(<"'][ ]?)?"""
    rb"""(?:[A-Z]{1,8}\b[\]:]?[\s|:-]{1,8}[\[(]?)?"""
)
_DATE = (
    rb"""(\d{4})[-/](\d\d)[-/](\d\d)[ T_](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))?"""
    rb"""\s?(Z\b|UTC\b|GMT\b|[+-]\d\d:?\d\d\b)?"""
)
_EPOCH = rb"""([12]\d{9})(\d{3}(?:\d{3}(?:\d{3})?)?)?(?:\.(\d{1,9}))?(?![\d-])"""
_JSON_KEY = rb"""\A\{.{0,400}?"(?:time|ts|t|timestamp|@timestamp|asctime|date|datetime)"\s?:\s?"?"""
_SYSLOG = rb"""(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) {1,2}(\d{1,2}) (\d\d):(\d\d):(\d\d)\b"""
_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")

_PLAIN = re.compile(_BEFORE + rb"(?:" + _DATE + rb"|" + _EPOCH + rb"|" + _SYSLOG + rb")")
# What a program's own lines begin with. Stricter: a number or an indented date may begin any line of a message.
_BEGINS = re.compile(rb"\A(?:\x1b\[[\d;]{0,12}m){0,4}\[?\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d")
_JSON = _JSON_KEY + rb"(?:" + _DATE + rb"|" + _EPOCH + rb")"


def begins_with_date(line: bytes) -> bool:
    """Whether a line begins with a whole date and time, or is a JSON object that tells one."""
    if line[:1] == b"{":
        return re.match(_JSON, line[:JSON_LOOK_AT]) is not None
    return _BEGINS.match(line) is not None


class LineClock:
    """Reads the times of one log's lines. Times are seconds since 1970."""

    def __init__(self, zone: str, now: float) -> None:
        """`zone`: of dates that name none (`Europe/Lisbon`); one that this machine does not know counts as UTC."""
        self.now = now
        self.zone: tzinfo = _zone(zone)
        self._minute: list[int] = []
        self._begins = (0.0, 0.0)
        """Of the newest line: mostly the next one has the same."""

    def read(self, line: bytes, after: float | None = None) -> float | None:
        """When the line says that it was written; None if it does not say.

        `after`: the time of an earlier line, which tells the two hours apart that a clock set back shows twice.
        """
        match = re.match(_JSON, line[:JSON_LOOK_AT]) if line[:1] == b"{" else _PLAIN.match(line[:LOOK_AT])
        if match is None:
            return None
        parts = match.groups()
        try:
            if parts[0]:
                return self._dated(parts[:8], after)
            if parts[8]:
                return _epoch(parts[8], parts[9], parts[10])
            return self._syslog(parts[11:16], after)
        except (ValueError, OverflowError):  # 2026-02-31, 25:61:00, the year 0
            return None

    def read_at(self, data: bytes, start: int, after: float | None = None) -> float | None:
        """As `read`, of the line that begins at `start`."""
        end = data.find(b"\n", start, start + JSON_LOOK_AT)
        return self.read(data[start : end if end >= 0 else start + JSON_LOOK_AT], after)

    def _dated(self, parts: tuple[bytes | None, ...], after: float | None) -> float:
        whole = [int(part or 0) for part in parts[:6]]
        fraction = float(b"0." + (parts[6] or b"0"))
        if parts[7]:
            at = datetime(*whole, tzinfo=UTC)  # type: ignore[arg-type, misc]
            return at.timestamp() - _offset(parts[7]) + fraction
        return self._local(whole, after) + fraction

    def _local(self, whole: list[int], after: float | None) -> float:
        """Of an hour that occurs twice: the first, unless earlier lines have passed it or there are none."""
        *minute, second = whole
        if not 0 <= second < 60:
            raise ValueError("a minute has sixty seconds")
        if minute != self._minute:
            self._minute, self._begins = minute, self._both(minute)
        early, late = (one + second for one in self._begins)
        if late <= early:
            return early
        if after is None:
            return late if late <= self.now + AHEAD else early
        return early if early >= after - BACKWARDS else late

    def _both(self, minute: list[int]) -> tuple[float, float]:
        """When a minute began, the first and the second time; mostly it has but one."""
        first = datetime(*minute, tzinfo=self.zone)  # type: ignore[arg-type, misc]
        early = first.timestamp()
        return (early, early) if self.zone is UTC else (early, first.replace(fold=1).timestamp())

    def _syslog(self, parts: tuple[bytes | None, ...], after: float | None) -> float:
        """No year in it: the last such day that is not ahead of now."""
        month = _MONTHS.index(parts[0] or b"") + 1
        rest = [int(part or 0) for part in parts[1:]]
        year = datetime.fromtimestamp(self.now, UTC).year
        at = self._local([year, month, *rest], after)
        return at if at <= self.now + 86400 else self._local([year - 1, month, *rest], after)


def _zone(name: str) -> tzinfo:
    if name in ("", "UTC"):
        return UTC
    from zoneinfo import ZoneInfo  # most logs name no zone

    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError):
        return UTC


def _offset(zone: bytes) -> int:
    """Seconds east of Greenwich."""
    if zone[:1] not in b"+-":
        return 0
    digits = zone[1:].replace(b":", b"")
    seconds = int(digits[:2]) * 3600 + int(digits[2:]) * 60
    return -seconds if zone[:1] == b"-" else seconds


def _epoch(seconds: bytes, more: bytes | None, fraction: bytes | None) -> float:
    """Seconds, milliseconds, microseconds or nanoseconds since 1970, by the number of digits."""
    return float(seconds + b"." + (more or b"") + (fraction or b"0"))
