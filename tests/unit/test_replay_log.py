"""A log that rotates, as one text: how far back it reaches, and what it does not prove."""

from __future__ import annotations

import gzip
import os
import socket
import threading
import time
import tracemalloc
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from botkeep import replay
from botkeep.model import BotkeepError, Replay, UsageError

NOW = datetime(2026, 11, 22, tzinfo=UTC)
DAY = timedelta(days=1)


def line(number: int) -> str:
    """The fill of minute `number`."""
    at = datetime(2026, 11, 20, tzinfo=UTC) + timedelta(minutes=number)
    return (
        f'{at:%Y-%m-%d %H:%M:%S},000 - 1 - hummingbot.core.event.event_reporter - EVENT_LOG - {{"timestamp": '
        f'{at.timestamp()}, "order_id": "o{number}", "trading_pair": "ETH-USDT", "trade_type": "TradeType.BUY", '
        f'"price": "2640.{number}", "amount": "0.05", "trade_fee": {{"percent": "0", "flat_fees": []}}, '
        f'"exchange_trade_id": "{number}", "event_name": "OrderFilledEvent", "event_source": "binance"}}\n'
    )


def text(first: int, last: int) -> str:
    return "".join(line(number) for number in range(first, last))


def ids(found: Replay) -> list[int]:
    return [int(fill.id) for fill in found.fills]


def read(log: Path, since: datetime | None = None, **options: object) -> Replay:
    return replay.from_log(log, "hummingbot", since=since, now=NOW, **options)  # type: ignore[arg-type]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Thirty fills: ten in the log, ten in each of two older files, the oldest packed."""
    path = tmp_path / "bot.log"
    path.write_text(text(20, 30))
    (tmp_path / "bot.log.1").write_text(text(10, 20))
    (tmp_path / "bot.log.2.gz").write_bytes(gzip.compress(text(0, 10).encode()))
    return path


def at(number: int) -> datetime:
    return datetime(2026, 11, 20, tzinfo=UTC) + timedelta(minutes=number)


def test_rotated_files_are_read_in_order(log: Path) -> None:
    found = read(log)
    assert ids(found) == list(range(30))
    assert found.since == at(0)
    assert found.until is None


def test_it_is_read_back_only_as_far_as_asked(log: Path) -> None:
    assert ids(read(log, at(25))) == list(range(20, 30))
    assert ids(read(log, at(19))) == list(range(10, 30))
    assert read(log, at(19)).since == at(10)
    assert read(log, at(0) - DAY).since == at(0)


@pytest.mark.parametrize(
    "names",
    [
        ("bot.log.2026-11-19", "bot.log.2026-11-18"),
        ("bot.log-20261119", "bot.log-20261118"),
        ("bot.log.2026-11-20_03", "bot.log.2026-11-20_02"),
        ("bot.log-20261119.gz", "bot.log-20261118.gz"),
    ],
)
def test_names_with_dates_are_known(tmp_path: Path, names: tuple[str, str]) -> None:
    (tmp_path / "bot.log").write_text(text(20, 30))
    for name, first in zip(names, (10, 0), strict=True):
        data = text(first, first + 10).encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    (tmp_path / "bot.log.bak").write_text(text(90, 95))
    (tmp_path / "bot.log.2026-13-45").write_text(text(90, 95))
    assert ids(read(tmp_path / "bot.log")) == list(range(30))


def test_a_missing_file_of_the_row_ends_what_is_proven(log: Path) -> None:
    (log.parent / "bot.log.1").rename(log.parent / "bot.log.3")
    found = read(log)
    assert found.since == at(20)
    assert "number 1 of its rotated files is missing" in found.notes[0]


def test_a_missing_day_ends_what_is_proven(tmp_path: Path) -> None:
    (tmp_path / "bot.log").write_text(text(20, 30))
    for day, first in ((19, 10), (18, 5), (16, 0)):
        (tmp_path / f"bot.log.2026-11-{day}").write_text(text(first, first + 5))
    found = read(tmp_path / "bot.log")
    assert found.since == at(5)
    assert "between bot.log.2026-11-16 and bot.log.2026-11-18" in found.notes[0]


def test_only_the_newest_bytes_are_read_and_that_is_said(log: Path) -> None:
    size = log.stat().st_size
    found = read(log, budget=size // 2)
    assert ids(found) == list(range(26, 30)) or ids(found) == list(range(25, 30))
    assert found.since == found.fills[0].at
    assert "only the newest bytes" in found.notes[0]
    assert ids(read(log, budget=size + size // 2))[-15:] == list(range(15, 30))


def write_flood(path: Path, begin: str, chunk: bytes) -> None:
    """A packed file of some kilobytes that unpacks to 40 MiB; damaged at its end, so that reading all of it shows."""
    packed = gzip.compress(begin.encode() + chunk * 40, compresslevel=6)
    assert len(packed) < 400_000
    path.write_bytes(packed[:-20])


@pytest.mark.parametrize("begin", [text(0, 10), ""])
@pytest.mark.parametrize("chunk", [b"a\n" * (1 << 19), b"\0" * (1 << 20)])
def test_a_packed_file_that_unpacks_to_more_than_the_budget_is_not_read(log: Path, begin: str, chunk: bytes) -> None:
    write_flood(log.parent / "bot.log.2.gz", begin, chunk)
    found = read(log, budget=8 << 20)
    assert ids(found) == list(range(10, 30))
    assert found.since == at(10)
    assert found.notes == ("only the newest bytes of the log were read, back to 2026-11-20 00:10:00Z",)


def test_what_packed_files_unpack_to_counts_together(log: Path) -> None:
    older = log.parent / "bot.log.2.gz"
    size = sum(len(text(first, first + 10)) for first in (0, 10, 20))
    assert ids(read(log, budget=size)) == list(range(30))
    assert older.stat().st_size < size // 10
    found = read(log, budget=size - 1)
    assert ids(found) == list(range(10, 30))
    assert "back to 2026-11-20 00:10:00Z" in found.notes[0]


def test_a_packed_file_that_is_damaged_is_an_error_and_no_silence(log: Path) -> None:
    packed = log.parent / "bot.log.2.gz"
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(BotkeepError, match="cannot be unpacked"):
        read(log)
    assert ids(read(log, at(15))) == list(range(10, 30))


def test_a_copied_line_counts_once_and_the_unfinished_one_not_at_all(log: Path) -> None:
    (log.parent / "bot.log.1").write_text(text(10, 23))
    log.write_text(text(20, 30) + line(30)[:-1])
    found = read(log)
    assert ids(found) == list(range(30))
    assert "cut short" in found.quarantined[0].text


def test_a_line_that_is_too_long_is_skipped_and_its_end_is_no_line(tmp_path: Path) -> None:
    log = tmp_path / "bot.log"
    log.write_text(line(0) + "x" * 3_000_000 + line(1) + line(2))
    assert ids(read(log)) == [0, 2]


def test_windows_line_ends_are_no_part_of_a_line(tmp_path: Path) -> None:
    (tmp_path / "bot.log").write_bytes(text(0, 5).replace("\n", "\r\n").encode())
    assert ids(read(tmp_path / "bot.log")) == list(range(5))


def test_a_large_log_is_read_in_flat_memory_and_in_time(tmp_path: Path) -> None:
    log = tmp_path / "bot.log"
    noise = "2026-11-20 00:00:00,000 - 1 - hummingbot.strategy - INFO - nothing happened, as usual at this hour\n"
    log.write_text(line(0) + noise * 300_000 + line(1))
    tracemalloc.start()
    begun = time.thread_time()
    assert ids(read(log)) == [0, 1]
    took, peak = time.thread_time() - begun, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 << 20, peak
    assert took < 20


def test_a_log_that_rotates_all_the_time_is_read_without_a_hole(tmp_path: Path) -> None:
    """A writer that renames its log every few lines; each look must see a run of lines up to some moment."""
    log = tmp_path / "bot.log"
    log.write_text("")
    stop = threading.Event()
    written = [0]

    def write() -> None:
        while not stop.is_set() and written[0] < 2000:
            with log.open("a") as file:
                file.write(line(written[0]))
            written[0] += 1
            if written[0] % 20 == 0:
                for number in range(101, 0, -1):
                    if (older := tmp_path / f"bot.log.{number}").exists():
                        older.rename(tmp_path / f"bot.log.{number + 1}")
                log.rename(tmp_path / "bot.log.1")
                log.touch()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        looks = 0
        while writer.is_alive() or not looks:
            try:
                seen = ids(read(log))
            except BotkeepError:
                continue  # between the rename and the new file there is no log
            looks += 1
            assert not seen or seen == list(range(seen[0], seen[0] + len(seen)))
    finally:
        stop.set()
        writer.join()
    assert ids(read(log)) == list(range(written[0]))


@pytest.mark.parametrize("kind", ["fifo", "folder", "socket", "missing", "device"])
def test_what_is_no_file_is_named_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bot.log"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path = Path("/dev/zero")
    with closing(socket.socket(socket.AF_UNIX)) as opened:
        if kind == "socket":
            opened.bind(str(path))
        with pytest.raises(BotkeepError, match="No trades can be read again from the log"):
            read(path)


def test_a_grammar_or_a_zone_that_nobody_knows_is_a_mistake(log: Path) -> None:
    with pytest.raises(UsageError, match="freqtrade, hummingbot, jsonl"):
        replay.from_log(log, "gekko", now=NOW)
    with pytest.raises(BotkeepError, match="Atlantis"):
        read(log, zone="Europe/Atlantis")


def test_the_reach_is_told_in_utc(tmp_path: Path) -> None:
    (tmp_path / "bot.log").write_text(text(0, 2))
    assert read(tmp_path / "bot.log", zone="America/New_York").since == at(0) + timedelta(hours=5)
