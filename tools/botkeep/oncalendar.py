"""Cron's five fields as systemd's OnCalendar: exactly, or not at all. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from .model import UsageError

_DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
_EVERY = "*"


def on_calendar(schedule: str, timezone: str | None = None) -> tuple[str, ...]:
    """The lines whose times, taken together, are those of `schedule`, in that zone or the machine's.

    Cron takes a day that fits the day of the month or that of the week, where both are given; systemd both: then it
    takes two lines. Raises UsageError for the one thing on which crons disagree among themselves.
    """
    from croniter import croniter

    fields = schedule.split()
    minute, hour, day, month, weekday = croniter.expand(schedule)[0]
    by_day, by_weekday = day != [_EVERY], weekday != [_EVERY]
    if by_day and by_weekday and any(field.startswith(_EVERY) for field in (fields[2], fields[4])):
        raise UsageError(
            f"{schedule!r} gives a day of the month and one of the week, one of them by steps of every day: crons "
            "disagree what that means, and no timer of systemd is it. Write the days out."
        )
    at = f"{_part(hour, 0, 23)}:{_part(minute, 0, 59)}:00{f' {timezone}' if timezone else ''}"
    date = f"*-{_part(month, 1, 12)}"
    dated = f"{date}-{_part(day, 1, 31)} {at}"
    named = f"{_weekdays(weekday)} {date}-* {at}"
    if by_day and by_weekday:
        return (dated, named)
    return (named if by_weekday else dated,)


def _part(values: Sequence[int | str], low: int, high: int) -> str:
    """`*`, `9..17` or `0,20,40`. Never `0/20`: systemd 252 loses the first time of a month that way."""
    chosen = sorted({int(one) for one in values}) if _EVERY not in values else list(range(low, high + 1))
    if chosen == list(range(low, high + 1)):
        return _EVERY
    if len(chosen) > 2 and chosen == list(range(chosen[0], chosen[-1] + 1)):
        return f"{chosen[0]}..{chosen[-1]}"
    return ",".join(map(str, chosen))


def _weekdays(values: Sequence[int | str]) -> str:
    chosen = sorted({int(one) % 7 for one in values if one != _EVERY})
    return ",".join(_DAYS[one] for one in chosen)
