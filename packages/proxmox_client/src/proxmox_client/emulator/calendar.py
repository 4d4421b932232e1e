"""Calendar events of Proxmox: the next time of a schedule."""

import re
from datetime import datetime, timedelta
from typing import Final

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
NAMED: Final = {
    "minutely": "*:*",
    "hourly": "*:00",
    "daily": "00:00",
    "weekly": "mon 00:00",
    "monthly": "*-*-01 00:00",
}
HORIZON: Final = 370
"""Days to search for the next run."""


def next_run(schedule: str, after: datetime) -> datetime:
    """Return the first matching minute after a time; if none matches, HORIZON days later."""
    text = NAMED.get(schedule.strip(), schedule.strip().lower())
    hours, minutes = _times(text)
    days = _days(text)
    month_day = re.search(r"\*-\*-(\d+)", text)
    start = after.replace(second=0, microsecond=0) + timedelta(minutes=1)
    for shift in range(HORIZON):
        day = start + timedelta(days=shift)
        if day.weekday() not in days or (month_day and day.day != int(month_day[1])):
            continue
        for hour in sorted(hours):
            for minute in sorted(minutes):
                due = day.replace(hour=hour, minute=minute)
                if due >= start:
                    return due
    return start + timedelta(days=HORIZON)


def _days(text: str) -> set[int]:
    named: set[int] = set()
    for first, last in re.findall(
        r"\b(mon|tue|wed|thu|fri|sat|sun)(?:\.\.(mon|tue|wed|thu|fri|sat|sun))?", text
    ):
        begin, end = DAYS.index(first), DAYS.index(last or first)
        named.update(range(begin, end + 1))
    return named or set(range(7))


def _times(text: str) -> tuple[set[int], set[int]]:
    clock = re.search(r"(?<!\S)(\S+):(\S+)", text)
    if clock:
        return _numbers(clock[1], 24), _numbers(clock[2], 60)
    bare = re.search(r"(?:^|\s)(\*?/?\d[\d,/.]*)$", text)
    if bare:
        return set(range(24)), _numbers(bare[1], 60)
    return {0}, {0}


def _numbers(text: str, end: int) -> set[int]:
    """Parse the numbers of a part like 2, 1..5, */15 or 8,20."""
    numbers: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("..")
        begin = 0 if first in ("", "*") else int(first)
        stop = int(last) + 1 if last else end if step or first == "*" else begin + 1
        numbers.update(range(begin, min(stop, end), int(step or 1)))
    return {number for number in numbers if number < end} or {0}
