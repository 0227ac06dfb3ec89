"""JSON lines and whole JSON documents: what is sound, what is damage, what can be saved and what can be added."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from botkeep.formats import FORMATS, Format, FormatOptions, kind_of
from botkeep.formats.base import inspect_whole
from botkeep.formats.files import regular
from botkeep.formats.jsondoc import Kind
from botkeep.formats.jsontext import NotSoundError, parse
from botkeep.model import BotkeepError, ClosedTrade, DataVerdict, Fill, Inspection
from botkeep.pnl import figures, rounded
from support.formats.json import document
from support.formats.jsonl import line, record
from support.json_writer import START, fill
from support.piped import Piped
from support.trade_files import DATA, NOW, as_nobody

OPTIONS = FormatOptions()
TRUTH = json.loads((DATA / "custom/truth.json").read_text())
OK, PENDING, CORRUPT = DataVerdict.OK, DataVerdict.PENDING, DataVerdict.CORRUPT


class Eye:
    """Looks at a file again and again, as rounds do: each look is given the cursor of the one before."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.path, self.options = path, FormatOptions(**options)
        self.kind = FORMATS[kind_of(path)]
        self.now: datetime = NOW
        self.cursor: dict[str, Any] | None = None

    def look(self, *, writing: bool = False, after: float = 0.0, live: bool = False) -> Inspection:
        """`live`: at this moment, for a file that is written at this moment; else `after` seconds later."""
        self.now = datetime.now(UTC) if live else self.now + timedelta(seconds=after)
        seen = self.kind.inspect(self.path, options=self.options, cursor=self.cursor, writing=writing, now=self.now)
        self.cursor = seen.cursor
        return seen


def _of(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def _look(path: Path, *, writing: bool = False, **options: Any) -> Inspection:
    return Eye(path, **options).look(writing=writing)


def _kind(path: Path) -> Format:
    return FORMATS[kind_of(path)]


def _fills(path: Path, **options: Any) -> tuple[Fill, ...]:
    return _kind(path).trades(path, options=FormatOptions(**options)).fills


def _ids(path: Path, **options: Any) -> list[str]:
    return [one.id for one in _fills(path, **options)]


def _lines(rows: int, first: int = 0) -> str:
    return "".join(line(number) for number in range(first, first + rows))


def _rebuilt(good: Path | None, damaged: Path, **options: Any) -> tuple[Any, Path]:
    target = damaged.with_name(f"new-{damaged.name}")
    made = _kind(damaged).rebuild(good, damaged, target, options=FormatOptions(**options))
    assert (made.size, made.sha256) == _content(target)
    assert inspect_whole(_kind(target), target, options=FormatOptions(**options), now=NOW).verdict is OK
    return made, target


def _content(path: Path) -> tuple[int, str]:
    with regular(path) as source:
        return source.size, source.digest(0, source.size)


def _no_mess(folder: Path) -> bool:
    return not [one for one in folder.iterdir() if one.name.startswith(".") or one.is_dir()]


# --- what bots wrote ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fills.json", "fills.jsonl"])
def test_the_pnl_of_a_real_file_is_the_known_truth(name: str) -> None:
    table = _kind(DATA / name).trades(DATA / "custom" / name, options=OPTIONS)
    assert len(table.fills) == TRUTH["fills"]
    assert table.skipped == 0
    found = figures("bot", table).currencies[0]
    assert str(rounded(found.realised)) == TRUTH["pnl_fifo_total"]
    assert _look(DATA / "custom" / name).verdict is OK


@pytest.mark.parametrize(("name", "rows"), [("bad_truncated.json", 160), ("bad_truncated.jsonl", 239)])
def test_a_real_file_that_was_cut_off_keeps_its_whole_records(name: str, rows: int, tmp_path: Path) -> None:
    path = Path(shutil.copy(DATA / "custom" / name, tmp_path))
    seen = _look(path)
    assert (seen.verdict, seen.rows, seen.findings[0].rule) == (CORRUPT, rows, "C1")
    assert _look(path, writing=True).verdict is PENDING
    good = Path(shutil.copy(DATA / "custom" / name.replace("bad_truncated", "fills"), tmp_path / "good"))
    assert _rebuilt(good, path)[0].rows == 240
    made, target = _rebuilt(None, path)
    assert (made.rows, made.kept, len(_fills(target))) == (rows, 0, rows)
    assert _no_mess(tmp_path)


def test_a_rebuilt_document_looks_as_the_bot_wrote_it(tmp_path: Path) -> None:
    whole = document(60)
    good = _of(tmp_path / "good", document(50))
    path = _of(tmp_path / "trades.json", whole[:-1])
    assert _rebuilt(good, path)[1].read_text() == whole


# --- layouts -----------------------------------------------------------------------------------------------------

_ROWS = [fill(number) for number in range(30)]
_TINY = {str(number + 1): one for number, one in enumerate(_ROWS)}
DOCUMENTS: dict[str, Any] = {
    "an array": _ROWS,
    "an array in an object": {"version": 3, "trades": _ROWS, "updated": "2026-11-21"},
    "one further in": {"status": "ok", "data": {"pairs": ["DOGE/USDT"], "trades": _ROWS}},
    "TinyDB": {"_default": {}, "all_trades": _TINY},
    "TinyDB with more tables": {"orders": {"1": {"id": 7, "note": "x"}}, "all_trades": _TINY, "users": {}},
    "an object by key": {f"T{number}": one for number, one in enumerate(_ROWS)},
    "open orders beside them": {"open_orders": _ROWS[:3], "trade_history": _ROWS},
    "a long list before them": {"candles": [[1, 2, 3, 4]] * 20_000, "fills": _ROWS},
    "a long list behind them": {"fills": _ROWS, "candles": [{"o": "]}"}] * 9_000},
}


@pytest.mark.parametrize("style", [{}, {"indent": 2}, {"separators": (",", ":")}], ids=["plain", "indented", "dense"])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_trades_of_a_document_are_found_wherever_they_stand(
    name: str, style: dict[str, Any], tmp_path: Path
) -> None:
    path = _of(tmp_path / "trades.json", json.dumps(DOCUMENTS[name], **style))
    found = _fills(path)
    assert [one.id for one in found] == [str(1000 + number) for number in range(30)]
    assert found[7] == Fill(
        at=datetime.fromtimestamp(START + 420, UTC), symbol="DOGE/USDT", side="sell", price=Decimal("0.100007"),
        amount=Decimal("100.0"), fee=Decimal("0.01"), fee_currency="USDT", id="1007", quote="USDT",
    )  # fmt: skip
    seen = _look(path)
    assert (seen.verdict, seen.rows, seen.findings) == (OK, 30, ())
    assert len(json.dumps(seen.cursor)) < 64 * 1024


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_taken_apart_and_put_together_is_the_same_to_the_byte(name: str, tmp_path: Path) -> None:
    for style in ({}, {"indent": 2}, {"separators": (",", ":")}):
        text = json.dumps(DOCUMENTS[name], **style).replace("\n", "\r\n")
        path = _of(tmp_path / "trades.json", text + "\n")
        good = Path(shutil.copy(path, tmp_path / "good"))
        made, target = _rebuilt(good, path)
        assert target.read_bytes() == path.read_bytes()
        assert (made.rows, made.salvaged, made.dropped) == (30, 0, 0)


def test_one_of_several_lists_is_chosen_by_its_name(tmp_path: Path) -> None:
    path = _of(tmp_path / "trades.json", json.dumps({"live": {"a": _ROWS[:4]}, "paper": {"a": _ROWS}}))
    assert len(_fills(path, table="live.a")) == 4
    assert len(_fills(path, table="paper.a")) == 30
    with pytest.raises(BotkeepError, match=r"data_format.table names 'dead'.*live.a, paper.a"):
        _fills(path, table="dead")


@pytest.mark.parametrize("text", ["[]", "[ ]\n", '{"trades": []}', '{"trades": {}}', "{}", '{"_default": {}}'])
def test_a_document_without_a_trade_yet_is_sound(text: str, tmp_path: Path) -> None:
    path = _of(tmp_path / "trades.json", text)
    seen = _look(path)
    assert (seen.verdict, seen.rows) == (OK, 0)
    assert _fills(path) == ()
    made, target = _rebuilt(Path(shutil.copy(path, tmp_path / "good")), path)
    assert (made.rows, target.read_text()) == (0, text)


def test_a_document_that_grows_from_nothing_is_followed(tmp_path: Path) -> None:
    eye = Eye(tmp_path / "trades.json")
    for rows in (0, 1, 2, 19, 20, 21, 300):
        _of(eye.path, json.dumps({"_default": {}, "all_trades": {str(n + 1): fill(n) for n in range(rows)}}))
        seen = eye.look(writing=True, after=300)
        assert (seen.verdict, seen.rows) == (OK, rows)


def test_only_what_a_rewritten_document_has_more_is_read(tmp_path: Path) -> None:
    eye = Eye(_of(tmp_path / "trades.json", document(5000)))
    size = eye.look().size or 0
    _of(eye.path, document(5003))
    seen = eye.look(writing=True)
    assert (seen.verdict, seen.rows) == (OK, 5003)
    assert seen.read_from > size - 10


@pytest.mark.parametrize("wrap", [lambda one: {"event": "fill", "data": one}, lambda one: {"trade": one, "n": 1}])
def test_a_record_may_be_wrapped_in_another_object(wrap: Callable[[Any], Any], tmp_path: Path) -> None:
    path = _of(tmp_path / "trades.jsonl", "".join(json.dumps(wrap(one)) + "\n" for one in _ROWS))
    assert _fills(path) == _fills(_of(tmp_path / "trades.json", json.dumps(_ROWS)))


def test_members_are_named_in_the_configuration_with_dots(tmp_path: Path) -> None:
    rows = [{"w": one["timestamp"], "x": {"p": 1.5, "q": "2"}, "s": "BUY", "m": "ETHUSDT"} for one in _ROWS]
    path = _of(tmp_path / "trades.jsonl", "".join(json.dumps(one) + "\n" for one in rows))
    chosen = {"time": "w", "price": "x.p", "amount": "x.q", "side": "s", "symbol": "m"}
    assert [(one.price, one.amount) for one in _fills(path, columns=chosen)] == [(Decimal("1.5"), Decimal(2))] * 30
    with pytest.raises(BotkeepError, match=r"names 'x.z'.*x.p"):
        _fills(path, columns=chosen | {"price": "x.z"})


def test_closed_trades_with_the_bots_own_result_are_read_and_open_ones_said_so(tmp_path: Path) -> None:
    closed = [
        {"pair": "BTC/USDT", "close_time": f"2026-11-0{day}T10:00:00Z", "profit_abs": day / 4, "status": "closed"}
        for day in range(1, 8)
    ]
    rows = [*closed, {"pair": "BTC/USDT", "close_time": None, "profit_abs": None, "status": "open"}]
    for path in (
        _of(tmp_path / "trades.json", json.dumps(rows)),
        _of(tmp_path / "trades.jsonl", "".join(json.dumps(one) + "\n" for one in rows)),
    ):
        table = _kind(path).trades(path, options=OPTIONS)
        assert [one.pnl for one in table.closed] == [Decimal(day) / 4 for day in range(1, 8)]
        assert any("1 open trade" in note for note in table.notes)
        assert _look(path).verdict is OK


def _paper(with_result: bool = True) -> str:
    rows = []
    for number in range(12):
        common = {"symbol": "BTCUSDT", "side": "LONG", "price": 100 + number, "qty": 1}
        rows.append({"event": "OPEN", "time": f"2026-11-01T{number:02}:00:00Z", **common})
        close = {"event": "CLOSE", "time": f"2026-11-01T{number:02}:30:00Z", **common}
        rows.append(close | ({"gain": "1.25"} if with_result else {}))
    return "".join(json.dumps(one) + "\n" for one in rows)


@pytest.mark.parametrize("word", ["None", "N/A", "NA", "-", "null", "NaN", float("nan"), None])
@pytest.mark.parametrize("name", ["trades.json", "trades.jsonl"])
def test_a_word_for_no_result_yet_is_read_as_nothing(name: str, word: object, tmp_path: Path) -> None:
    rows = [
        {"close_time": f"2026-11-21T00:{n:02}:00Z", "symbol": "BTC/USDT", "pnl": 1.5 if n % 4 else word, "fee": 0.1}
        for n in range(40)
    ]
    text = json.dumps(rows) if name.endswith("json") else "".join(json.dumps(one) + "\n" for one in rows)
    path = _of(tmp_path / name, text)
    assert _look(path).verdict is OK
    read = _kind(path).trades(path, options=OPTIONS)
    assert (len(read.closed), read.skipped) == (30, 0)
    assert "10 open trades have no result yet and are not counted" in read.notes


def test_openings_and_closings_as_lines_of_their_own_are_unclear_until_somebody_says_what_counts(
    tmp_path: Path,
) -> None:
    path = _of(tmp_path / "paper_trades.jsonl", _paper())
    assert _look(path).verdict is OK
    with pytest.raises(BotkeepError, match=r"two records in it.*event says which.*columns.*pnl"):
        _fills(path)
    table = _kind(path).trades(path, options=FormatOptions(columns={"pnl": "gain"}))
    assert [one.pnl for one in table.closed] == [Decimal("1.25")] * 12
    assert table.notes == ("12 records are openings without a result and are not counted",)
    said = {"side": "side", "price": "price", "amount": "qty"}
    assert len(_fills(path, columns=said)) == 24


# --- damage ------------------------------------------------------------------------------------------------------

_BAD_VALUES = {
    "NaN": "J2", "Infinity": "J2", "-Infinity": "J2", "1e999": "J2", "1e1000000": "J2", '"1_000"': "C9",
    '"\uff11\uff12"': "C9", '"abc"': "C9", '"1e5000"': "J2", "9" * 30_000: "C9",
    "true": "C9", '"inf"': "C9",
}  # fmt: skip


def _with_price(text: str, number: int, written: str) -> str:
    price = json.dumps(record(number)["price"])
    assert text.count(price) == 1
    return text.replace(price, written)


@pytest.mark.parametrize("written", _BAD_VALUES)
def test_a_price_that_is_no_number_is_one_damaged_record(written: str, tmp_path: Path) -> None:
    for name, whole in (("trades.jsonl", _lines(40)), ("trades.json", document(40))):
        path = _of(tmp_path / name, _with_price(whole, 7, written))
        seen = _look(path)
        assert (seen.verdict, seen.rows, seen.findings[0].row) == (CORRUPT, 39, 8)
        assert seen.findings[0].rule == _BAD_VALUES[written]
        assert len(seen.findings[0].text) < 400
        assert len(_fills(path)) == 39
        made, target = _rebuilt(_of(tmp_path / f"good-{name}", whole), path)
        assert (made.rows, made.dropped, _ids(target)) == (40, 1, [str(1000 + n) for n in range(40)])


@pytest.mark.parametrize(("written", "rule"), [('""', "C9"), ("null", "C9"), ("[1]", "C9"), (None, "C4")])
def test_a_price_that_no_record_was_without_may_not_be_missing(written: str | None, rule: str, tmp_path: Path) -> None:
    for name, whole in (("trades.jsonl", _lines(400)), ("trades.json", document(400))):
        price = json.dumps(record(370)["price"])
        bad = whole.replace(price, written) if written else whole.replace(f'"price": {price}', '"prize": 1')
        path = _of(tmp_path / name, bad)
        seen = _look(path)
        assert (seen.verdict, seen.rows) == (CORRUPT, 399)
        assert (seen.findings[0].rule, seen.findings[0].row) == (rule, 371)
        assert _rebuilt(_of(tmp_path / f"good-{name}", whole), path)[1].read_text() == whole


def test_a_strange_number_that_is_no_trades_money_is_the_bots_own_affair(tmp_path: Path) -> None:
    rows = [json.dumps(one | {"rsi": float("nan"), "score": float("inf")}) for one in _ROWS]
    assert _look(_of(tmp_path / "trades.jsonl", "\n".join(rows) + "\n")).verdict is OK
    assert _look(_of(tmp_path / "trades.json", f"[{','.join(rows)}]")).verdict is OK


@pytest.mark.parametrize(
    ("spoil", "rule"),
    [
        (lambda text: text.replace('"side"', '"price"', 1), "J2"),
        (lambda text: text[:60] + text[61:].replace('"', "", 1), "J1"),
        (lambda text: text.replace(",", ",,", 1), "J1"),
        (lambda text: text.replace(":", "", 1), "J1"),
        (lambda text: text.replace("DOGE", "DO\0\0", 1), "C2"),
        (lambda text: text.replace('"qty"', '"x": {"a": ' * 40 + "1" + "}" * 40 + ', "qty"'), "J1"),
        (lambda text: text.replace("SELL", "SE LL"), "C9"),
        (lambda _: "[1, 2, 3]", "J1"),
        (lambda _: "null", "J1"),
    ],
)
def test_a_spoilt_record_is_found_and_the_others_are_saved(
    spoil: Callable[[str], str], rule: str, tmp_path: Path
) -> None:
    one = json.dumps(record(7))
    bad = spoil(one)
    assert bad != one
    plain = json.dumps([record(number) for number in range(40)])
    for name, whole, text in (
        ("trades.jsonl", _lines(40), _lines(7) + bad + "\n" + _lines(32, 8)),
        ("trades.json", plain, plain.replace(one, bad)),
    ):
        path = _of(tmp_path / name, text)
        seen = _look(path)
        assert (seen.verdict, seen.rows, seen.findings[0].rule) == (CORRUPT, 39, rule)
        assert _look(path, writing=True).verdict is DataVerdict.SUSPECT
        assert len(_fills(path)) == 39
        assert _ids(_rebuilt(_of(tmp_path / f"good-{name}", whole), path)[1]) == [str(1000 + n) for n in range(40)]
        assert _rebuilt(None, path)[0].rows == 39


def test_two_whole_records_in_one_line_are_both_saved(tmp_path: Path) -> None:
    glued = _lines(10) + line(10).rstrip("\n") + line(11).rstrip("\n") + "  " + line(12) + _lines(7, 13)
    path = _of(tmp_path / "trades.jsonl", glued)
    seen = _look(path)
    assert (seen.verdict, seen.findings[0].rule, seen.findings[0].row) == (CORRUPT, "J1", 11)
    assert "3 records stand in it" in seen.findings[0].text
    assert len(_fills(path)) == 20
    for good in (None, _of(tmp_path / "good", _lines(10))):
        made, target = _rebuilt(good, path)
        assert (made.rows, made.dropped, target.read_text()) == (20, 0, _lines(20).replace("\n", "\n"))


def test_a_line_is_not_split_where_one_half_is_not_whole(tmp_path: Path) -> None:
    path = _of(tmp_path / "trades.jsonl", _lines(10) + line(10)[:70] + line(11) + _lines(5, 12))
    assert _look(path).rows == 15
    assert _ids(_rebuilt(None, path)[1]) == [str(1000 + n) for n in (*range(10), *range(12, 17))]


def test_records_of_a_document_without_the_comma_between_them_are_both_saved(tmp_path: Path) -> None:
    path = _of(tmp_path / "trades.json", document(40).replace(" },\n {", " }\n {", 1))
    seen = _look(path)
    assert (seen.verdict, seen.findings[0].rule) == (CORRUPT, "J1")
    made, target = _rebuilt(None, path)
    assert (made.rows, made.dropped, target.read_text()) == (40, 0, document(40))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:-1],
        lambda text: text[:-2] + ",\n]",
        lambda text: text + "\n]",
        lambda text: text + text[-300:],
        lambda text: text + text,
        lambda text: text + "\0" * 4096,
        lambda text: text + "\0" * 2_000_000,
        lambda text: text[:-2] + "\0" * 600,
        lambda text: text[:-120] + "\0" * 4096,
        lambda text: text[:-1] + "}",
    ],
)
def test_a_document_that_does_not_end_as_one_is_damaged_and_all_its_records_are_saved(
    spoil: Callable[[str], str], tmp_path: Path
) -> None:
    path = _of(tmp_path / "trades.json", spoil(document(40)))
    seen = _look(path)
    assert seen.verdict is CORRUPT
    assert seen.findings[0].rule in ("C1", "C2", "C4")
    assert (seen.rows or 0) >= 39
    made, target = _rebuilt(_of(tmp_path / "good", document(38)), path)
    assert made.rows in (39, 40)
    assert json.loads(target.read_text())[:39] == [record(number) for number in range(39)]
    copy = tmp_path / "copy.json"
    _kind(path).snapshot(path, copy, options=OPTIONS)
    assert len(json.loads(copy.read_text())) in (39, 40)


def test_a_hole_over_several_records_loses_only_these(tmp_path: Path) -> None:
    whole = document(400).encode()
    path = _of(tmp_path / "trades.json", whole[:20480] + bytes(4096) + whole[24576:])
    seen = _look(path)
    assert (seen.verdict, seen.findings[0].rule) == (CORRUPT, "C2")
    assert 375 <= len(_fills(path)) < 400
    assert _rebuilt(_of(tmp_path / "good", document(390)), path)[1].read_bytes() == whole


def test_a_stray_quote_swallows_no_record_but_its_own(tmp_path: Path) -> None:
    for style in ({}, {"indent": 1}):
        text = json.dumps([record(number) for number in range(200)], **style)
        path = _of(
            tmp_path / "trades.json", text.replace('"1050"', '1050"').replace('"trade_id": 1050', '"trade_id": "1050')
        )
        assert _look(path).verdict is CORRUPT
        assert set(_ids(path)) >= {str(1000 + n) for n in range(200) if n not in (50, 51)}


@pytest.mark.parametrize("name", ["trades.json", "trades.jsonl"])
@pytest.mark.parametrize(
    ("data", "rule", "verdict"),
    [
        (b"<!doctype html><html><body>502 Bad Gateway</body></html>", "C11", CORRUPT),
        (b'{"code": -1021, "msg": "Timestamp for this request is outside of the recvWindow."}\n', "C11", None),
        (b'{"error": "rate limited"}\n', "C11", None),
        (b"SQLite format 3\0" + bytes(100), "C11", None),
        (document(3).encode("utf-16"), "C6", DataVerdict.UNREADABLE),
        (b"time,symbol,side\n2026-11-21,BTCUSDT,buy\n", "C11", None),
        (b"\0" * 4096, "C2", CORRUPT),
        (b"", "C10", PENDING),
    ],
)
def test_what_is_no_json_of_trades_is_named(
    name: str, data: bytes, rule: str, verdict: DataVerdict | None, tmp_path: Path
) -> None:
    path = _of(tmp_path / name, data)
    seen = _look(path)
    assert (seen.verdict, seen.findings[0].rule) == (verdict or DataVerdict.UNREADABLE, rule)
    eye = Eye(_of(path, document(30) if name == "trades.json" else _lines(30)))
    assert eye.look().verdict is OK
    _of(path, data)
    assert eye.look().verdict is (DataVerdict.UNREADABLE if rule == "C6" else CORRUPT)


def test_json_of_the_other_kind_is_said_to_be_so(tmp_path: Path) -> None:
    for text in (document(3), json.dumps(DOCUMENTS["TinyDB"]), json.dumps({"trades": _ROWS}, indent=1), "[\n]\n"):
        path = _of(tmp_path / "trades.jsonl", text)
        seen = _look(path)
        assert seen.verdict is DataVerdict.UNREADABLE
        assert '"data_format": {"kind": "json"}' in seen.findings[0].text
        with pytest.raises(BotkeepError, match=r'"kind": "json"'):
            _fills(path)
    path = _of(tmp_path / "trades.json", _lines(3))
    assert '"data_format": {"kind": "jsonl"}' in _look(path).findings[0].text
    with pytest.raises(BotkeepError, match=r'"kind": "jsonl"'):
        _fills(path)


def test_a_byte_order_mark_is_harmless_at_the_start_and_named_elsewhere(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    for name, whole in (("trades.jsonl", _lines(30)), ("trades.json", document(30))):
        path = _of(tmp_path / name, mark + whole.encode())
        seen = _look(path)
        assert (seen.verdict, seen.rows, seen.findings, len(_fills(path))) == (OK, 30, (), 30)
    path = _of(tmp_path / "trades.jsonl", _lines(10).encode() + mark + _lines(10, 10).encode())
    seen = _look(path)
    assert (seen.verdict, seen.rows, [one.rule for one in seen.findings]) == (OK, 20, ["C6"])
    assert len(_fills(path)) == 20


def test_bytes_that_are_no_utf8_are_named_and_cost_no_trade(tmp_path: Path) -> None:
    for name, whole in (("trades.jsonl", _lines(30)), ("trades.json", document(30))):
        path = _of(tmp_path / name, whole.replace('"USDT"', '"US\xe9"', 1).encode("cp1252"))
        seen = _look(path)
        assert (seen.verdict, [one.rule for one in seen.findings], len(_fills(path))) == (OK, ["C6"], 30)


@pytest.mark.parametrize(("name", "whole"), [("trades.jsonl", _lines(30)), ("trades.json", document(30))])
def test_a_file_cut_to_nothing_has_lost_its_rows_if_nobody_writes(name: str, whole: str, tmp_path: Path) -> None:
    eye = Eye(_of(tmp_path / name, whole))
    eye.look()
    _of(eye.path, "")
    assert eye.look(writing=True, live=True).verdict is PENDING
    seen = eye.look(live=True)
    assert (seen.verdict, seen.findings[0].rule) == (CORRUPT, "C10")


@pytest.mark.parametrize("name", ["trades.json", "trades.jsonl"])
def test_a_file_that_may_not_be_read_is_no_damage(name: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    path = _of(tmp_path / name, document(3) if name == "trades.json" else _lines(3))
    path.chmod(0)
    with as_nobody():
        seen = _look(path)
        assert (seen.verdict, seen.findings[0].rule) == (DataVerdict.UNREADABLE, "C15")
        for ask in (_fills, lambda one: _kind(one).snapshot(one, one.with_name("x"), options=OPTIONS)):
            with pytest.raises(BotkeepError):
                ask(path)


# --- hostile -----------------------------------------------------------------------------------------------------

_GOOD = json.dumps([record(number) for number in range(60)])
HOSTILE: dict[str, bytes] = {
    "100,000 brackets": b"[" * 100_000,
    "100,000 objects": b'{"a":' * 100_000,
    "100,000 closed objects among the trades": _GOOD[:-1].encode()
    + b","
    + b'{"a":' * 100_000
    + b"1"
    + b"}" * 100_000
    + b"]",
    "half records for ever": b"[" + b',{"a' * 500_000,
    "seams for ever": b'[{"a":1}' + b",{" * 500_000,
    "commas for ever": b"[" + b"," * 2_000_000,
    "quotes for ever": b"[" + b'"' * 2_000_000,
    "escapes for ever": b'[{"' + b"\\" * 2_000_000,
    "blanks for ever": b"[" + b" " * 3_000_000,
    "blanks and commas behind the trades": _GOOD[:-1].encode() + b", " * 500_000,
    "one number of five million digits": b'[{"price":' + b"9" * 5_000_000 + b"}]",
    "one text of five million bytes": b'[{"a":"' + b"x" * 5_000_000 + b'"}]',
    "100,000 broken records": b"[" + b",".join([b'{"a":1,,}'] * 100_000) + b"]",
    "a million members": b"{" + b'"a":1,' * 1_000_000 + b'"b":2}',
    "objects within objects": b"{" + b'"a":{"a":{"a":' * 100_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_costs_little_time_and_no_traceback(name: str, tmp_path: Path) -> None:
    data = HOSTILE[name]
    for path in (_of(tmp_path / "trades.json", data), _of(tmp_path / "trades.jsonl", _lines(30).encode() + data)):
        began = time.process_time()
        seen = _look(path)
        assert seen.verdict is not OK
        assert time.process_time() - began < 3.0
        assert len(json.dumps(seen.cursor)) < 64 * 1024
        assert all(len(one.text) < 500 for one in seen.findings)
        with suppress(BotkeepError):
            _fills(path)


@pytest.mark.parametrize("name", ["trades.json", "trades.jsonl"])
def test_five_gibibytes_are_sampled_at_both_ends_at_once(name: str, tmp_path: Path) -> None:
    path = _of(tmp_path / name, document(30)[:-2] if name == "trades.json" else _lines(30))
    os.truncate(path, 5 << 30)
    began = time.process_time()
    seen = _look(path)
    assert time.process_time() - began < 3.0
    assert seen.rows is None
    assert (seen.verdict, seen.findings[0].rule) == (CORRUPT, "C2")


def test_a_record_is_bounded_before_it_is_parsed() -> None:
    for raw in (b'{"a":' * 5000 + b"1" + b"}" * 5000, b"[" * 50, b'{"a": "\0"}', b"[]", b"1", b"", b"{", b"\xff\xfe"):
        with pytest.raises(NotSoundError):
            parse(raw)
    assert parse(b'{"a": 1.10, "b": 1e5, "c": 12345678901234567890123}').members == {
        "a": "1.10", "b": "1e5", "c": "12345678901234567890123",
    }  # fmt: skip


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cut=st.tuples(st.integers(0, 3000), st.integers(0, 200)),
    put=st.one_of(st.binary(max_size=40), st.sampled_from([b"{", b"}", b"]", b"[", b'"', b",", b"},{", b"\0\0\0"])),
    name=st.sampled_from(["trades.json", "trades.jsonl"]),
)
def test_whatever_happens_to_the_bytes_the_good_copy_and_the_new_rows_survive(
    cut: tuple[int, int], put: bytes, name: str, tmp_path: Path
) -> None:
    whole = (document(20) if name == "trades.json" else _lines(20)).encode()
    good = _of(tmp_path / f"good-{name}", document(15) if name == "trades.json" else _lines(15))
    start = min(cut[0], len(whole))
    path = _of(tmp_path / name, whole[:start] + put + whole[start + cut[1] :])
    seen = _look(path)
    target = tmp_path / f"new-{name}"
    try:
        made = _kind(path).rebuild(good, path, target, options=OPTIONS)
    except BotkeepError:
        assert seen.verdict is not OK
        return
    assert [one.id for one in _fills(target)][:15] == [str(1000 + n) for n in range(15)]
    assert made.rows >= 15
    if name == "trades.json":
        json.loads(target.read_bytes().decode("utf-8", "replace"))


_VALUES = st.decimals(min_value=Decimal("0.0001"), max_value=Decimal(10**9), places=8).map(lambda one: format(one, "f"))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prices=st.lists(_VALUES, min_size=1, max_size=30),
    notes=st.text(max_size=20),
    indent=st.sampled_from([None, 0, 1, 4]),
    ascii_only=st.booleans(),
)
def test_what_a_bot_wrote_is_read_exactly(
    prices: list[str], notes: str, indent: int | None, ascii_only: bool, tmp_path: Path
) -> None:
    rows = [record(number) | {"price": price, "note": notes} for number, price in enumerate(prices)]
    text = json.dumps(rows, indent=indent, ensure_ascii=ascii_only)
    path = _of(tmp_path / "trades.json", text.encode("utf-8", "surrogatepass"))
    assert [one.price for one in _fills(path)] == [Decimal(price) for price in prices]
    lines = "".join(json.dumps(one, ensure_ascii=ascii_only) + "\n" for one in rows)
    path = _of(tmp_path / "trades.jsonl", lines.encode("utf-8", "surrogatepass"))
    assert [one.price for one in _fills(path)] == [Decimal(price) for price in prices]


# --- live writers ------------------------------------------------------------------------------------------------


class Writer(Piped):
    """A process of support/json_writer.py."""

    def __init__(self, mode: str, path: Path) -> None:
        super().__init__("json_writer.py", mode, str(path))


@pytest.fixture
def writer() -> Iterator[Callable[[str, Path], Writer]]:
    """Starts writers, and ends them."""
    started: list[Writer] = []

    def start(mode: str, path: Path) -> Writer:
        started.append(Writer(mode, path))
        return started[-1]

    yield start
    for one in started:
        one.kill()


@pytest.mark.parametrize(("mode", "looks"), [("rewrite", 300), ("replace", 150)])
def test_a_document_that_is_written_anew_all_the_time_is_never_damage(
    mode: str, looks: int, writer: Callable[[str, Path], Writer], tmp_path: Path
) -> None:
    path = tmp_path / "trades.json"
    writer(mode, path)
    eye = Eye(path)
    seen = [eye.look(writing=True, live=True).verdict for _ in range(looks)]
    assert set(seen) <= {OK, PENDING, DataVerdict.MISSING}
    assert seen.count(OK) > looks // 4
    copy = tmp_path / "copy.json"
    made = None
    while made is None or "rows" not in made.mark:  # of a document that is empty for a moment there is nothing to say
        with suppress(BotkeepError):  # it says so where every copy was of two versions
            made = _kind(path).snapshot(path, copy, options=OPTIONS)
    assert made.mark["rows"] == len(_fills(copy))
    assert _look(copy).verdict is OK


def test_a_document_half_written_is_pending_and_corrupt_once_its_writer_is_dead(
    writer: Callable[[str, Path], Writer], tmp_path: Path
) -> None:
    path, good = _of(tmp_path / "trades.json", json.dumps([fill(n) for n in range(60)], indent=2)), tmp_path / "good"
    _kind(path).snapshot(path, good, options=OPTIONS)
    eye = Eye(path)
    assert eye.look(writing=True, live=True).verdict is OK
    stalled = writer("stall", path)
    assert eye.look(writing=True, live=True).verdict is PENDING
    stalled.kill()
    seen = eye.look(live=True)
    assert seen.verdict is CORRUPT
    assert {one.rule for one in seen.findings} == {"C1", "C10"}
    made, target = _rebuilt(good, path)
    assert (made.rows, made.kept, target.read_bytes()) == (60, 60, good.read_bytes())


def test_a_line_half_written_is_pending_and_then_a_row(writer: Callable[[str, Path], Writer], tmp_path: Path) -> None:
    path = tmp_path / "trades.jsonl"
    bot, eye = writer("lines", path), Eye(path)
    bot.tell("rows 25")
    assert (eye.look(writing=True).verdict, eye.look(writing=True).rows) == (OK, 25)
    bot.tell("half")
    assert eye.look(writing=True, after=100).verdict is PENDING
    copy = tmp_path / "copy.jsonl"
    _kind(path).snapshot(path, copy, options=OPTIONS)
    assert len(_fills(copy)) == 25
    bot.tell("rest")
    assert (eye.look(writing=True, after=1).verdict, eye.look().rows) == (OK, 26)
    bot.tell("half")
    bot.kill()
    seen = eye.look()
    assert (seen.verdict, seen.findings[0].rule) == (CORRUPT, "C1")
    assert _rebuilt(copy, path)[0].rows == 26


# --- newer versions, trades added, snapshots compared ------------------------------------------------------------


def test_a_record_that_was_edited_since_the_backup_is_taken_as_it_is_now(tmp_path: Path) -> None:
    rows = [one | {"status": "filled"} for one in _ROWS]
    good = _of(tmp_path / "good", json.dumps({"all_trades": {str(n): one for n, one in enumerate(rows)}}))
    now = [*rows[:10], rows[10] | {"status": "amended"}, *rows[11:], fill(30), fill(31)]
    text = json.dumps({"all_trades": {str(n): one for n, one in enumerate(now)}})
    path = _of(tmp_path / "trades.json", text[:-90])
    made, target = _rebuilt(good, path)
    assert (made.rows, made.replaced, made.salvaged) == (31, 1, 2)
    read = json.loads(target.read_text())["all_trades"]
    assert [read[str(n)] for n in range(31)] == now[:31]


def test_a_key_that_another_record_has_already_is_counted_on(tmp_path: Path) -> None:
    good = _of(tmp_path / "good", json.dumps({"all_trades": {str(n + 1): fill(n) for n in range(20)}}))
    anew = {str(n + 1): fill(n + 20) for n in range(3)}  # the bot lost its file, and began to count again
    made, target = _rebuilt(good, _of(tmp_path / "trades.json", json.dumps({"all_trades": anew})))
    assert (made.rows, made.salvaged) == (23, 3)
    assert list(json.loads(target.read_text())["all_trades"]) == [str(n + 1) for n in range(23)]


@pytest.mark.parametrize("style", [{"indent": 1}, {}])
def test_a_hole_loses_no_record_of_a_copy_in_which_two_share_an_id(style: dict[str, Any], tmp_path: Path) -> None:
    rows = [fill(n) for n in range(30)]
    rows[1]["id"] = rows[0]["id"]
    good = _of(tmp_path / "good", json.dumps(rows[:20], **style))
    text = json.dumps(rows, **style)
    start, end = (text.index(f'"id": {1000 + n}') for n in (5, 8))
    path = _of(tmp_path / "trades.json", text[:start] + "\0" * (end - start) + text[end:])
    made, target = _rebuilt(good, path)
    assert json.loads(target.read_text()) == rows
    assert (made.kept, made.replaced, made.salvaged) == (20, 0, 10)


def test_without_ids_equal_records_are_kept_and_only_later_ones_are_new(tmp_path: Path) -> None:
    rows = [{name: value for name, value in fill(n // 2).items() if name != "id"} for n in range(60)]
    good = _of(tmp_path / "good", json.dumps(rows[:50], indent=1))
    text = json.dumps(rows, indent=1)
    path = _of(tmp_path / "trades.json", text[:3000] + "\0" * 50 + text[3050:])
    made, target = _rebuilt(good, path)
    assert (made.kept, made.salvaged, json.loads(target.read_text())) == (50, 10, rows)


def _new_fill(number: int) -> Fill:
    return Fill(
        at=datetime.fromtimestamp(START + 60 * number, UTC), symbol="DOGEUSDT", side="sell" if number % 2 else "buy",
        price=Decimal("0.1") + Decimal(number) / 1_000_000, amount=Decimal("100.0"), fee=Decimal("0.01"),
        fee_currency="USDT", id=str(1000 + number), quote="USDT",
    )  # fmt: skip


@pytest.mark.parametrize("style", [{}, {"indent": 2}, {"separators": (",", ":")}], ids=["plain", "indented", "dense"])
@pytest.mark.parametrize("name", ["an array", "TinyDB", "an array in an object", "lines"])
def test_trades_are_added_in_the_files_own_way_of_writing(name: str, style: dict[str, Any], tmp_path: Path) -> None:
    if name == "lines":
        dense = {key: value for key, value in style.items() if key != "indent"}
        path = _of(tmp_path / "trades.jsonl", "".join(json.dumps(one, **dense) + "\n" for one in _ROWS))
    else:
        path = _of(tmp_path / "trades.json", json.dumps(DOCUMENTS[name], **style))
    path.chmod(0o640)
    before = path.read_text()
    missing = [_new_fill(number) for number in (30, 31)]
    made = _kind(path).append(path, missing, options=OPTIONS)
    assert (made.rows, made.left_out, made.size, made.sha256) == (32, (), *_content(path))
    assert path.stat().st_mode & 0o777 == 0o640
    assert [(one.at, one.price, one.id, one.fee) for one in _fills(path)[30:]] == [
        (one.at, one.price, one.id, one.fee) for one in missing
    ]
    assert _look(path).verdict is OK
    assert _no_mess(tmp_path)
    written = [json.loads(one) for one in path.read_text().splitlines()] if name == "lines" else _records(path)
    expected = fill(31)
    expected["info"] = dict.fromkeys(expected["info"])
    assert written[31] == expected
    if name != "lines":
        removed = json.dumps(_without(json.loads(path.read_text()), 30), **style)
        assert removed == before


def _records(path: Path) -> list[Any]:
    found = json.loads(path.read_text())
    found = found if isinstance(found, list) else found.get("trades") or found["all_trades"]
    return found if isinstance(found, list) else list(found.values())


def _without(read: Any, rows: int) -> Any:
    if isinstance(read, list):
        return read[:rows]
    if "trades" in read:
        return read | {"trades": read["trades"][:rows]}
    return read | {"all_trades": dict(list(read["all_trades"].items())[:rows])}


@pytest.mark.parametrize("name", ["trades.json", "trades.jsonl"])
def test_a_trade_is_not_added_as_an_order_that_was_not_filled(name: str, tmp_path: Path) -> None:
    rows = [one | {"status": "canceled" if n > 20 else "filled", "exchange": "gate_io"} for n, one in enumerate(_ROWS)]
    text = json.dumps(rows) if name.endswith("json") else "".join(json.dumps(one) + "\n" for one in rows)
    path = _of(tmp_path / name, text)
    before = len(_fills(path))
    made = _kind(path).append(path, [Fill(**(vars(_new_fill(30)) | {"market": "gateio"}))], options=OPTIONS)
    assert made.left_out == ()
    assert len(_fills(path)) == before + 1
    assert _fills(path)[-1].market == "gate_io"


_EVENTS = {"time": "2026-11-21T00:00:00Z", "symbol": "BTC/USDT", "side": "buy", "price": 100, "amount": 1}


def _event(number: int, kind: str) -> dict[str, Any]:
    return {"event": kind} | _EVENTS | {"time": f"2026-11-21T00:{number:02}:00Z", "order_id": f"o{number // 2}"}


@pytest.mark.parametrize(
    ("kinds", "counted"),
    [
        (("order_placed", "fill"), 6),
        (("signal", "TRADE_EXECUTED"), 6),
        (("order", "OrderFilledEvent"), 6),
        (("fill", "fill"), 12),
        (("partial", "fill"), 12),
        (("limit", "market"), 12),
    ],
)
@pytest.mark.parametrize("name", ["trades.json", "trades.jsonl"])
def test_orders_and_signals_among_the_executions_are_not_counted(
    name: str, kinds: tuple[str, str], counted: int, tmp_path: Path
) -> None:
    rows = [_event(n, kinds[n % 2]) for n in range(12)]
    text = json.dumps(rows) if name.endswith("json") else "".join(json.dumps(one) + "\n" for one in rows)
    path = _of(tmp_path / name, text)
    read = _kind(path).trades(path, options=OPTIONS)
    assert len(read.fills) == counted
    assert [note for note in read.notes if kinds[0] in note and "not counted" in note] == (
        [f"6 records are no executions but `{kinds[0]}` and are not counted"] if counted == 6 else []
    )
    assert _look(path).verdict is OK
    plain = vars(_new_fill(30)) | {"symbol": "BTC/USDT", "fee": Decimal(0), "id": ""}
    times = [datetime(2026, 11, 21, 0, minute, 30, tzinfo=UTC) for minute in (2, 11)]
    made = _kind(path).append(path, [Fill(**(plain | {"at": at})) for at in times], options=OPTIONS)
    assert (made.left_out, len(_fills(path))) == ((), counted + 2)
    word = None if kinds[0] == "limit" else kinds[1]
    assert [_records_of(path)[place]["event"] for place in (3, 13)] == [word, word]


def _records_of(path: Path) -> list[Any]:
    lines = path.suffix == ".jsonl"
    return [json.loads(one) for one in path.read_text().splitlines()] if lines else _records(path)


def test_a_missing_trade_goes_where_its_time_belongs_and_a_strange_one_is_left_out(tmp_path: Path) -> None:
    rows = [one for one in _ROWS if one["id"] != 1012]
    closed = ClosedTrade(at=NOW, symbol="DOGE/USDT", pnl=Decimal(3))
    for path in (
        _of(tmp_path / "trades.json", json.dumps(rows, indent=1)),
        _of(tmp_path / "trades.jsonl", "".join(json.dumps(one) + "\n" for one in rows)),
    ):
        made = _kind(path).append(path, [_new_fill(12), closed], options=OPTIONS)
        assert _ids(path) == [str(1000 + n) for n in range(30)]
        assert made.rows == 30
        assert "single executions" in made.left_out[0]
    path = _of(tmp_path / "trades.json", "[]")
    made = _kind(path).append(path, [_new_fill(1)], options=OPTIONS)
    assert (made.rows, len(made.left_out), path.read_text()) == (0, 1, "[]")


def test_a_fee_that_has_no_place_is_not_lost_in_silence(tmp_path: Path) -> None:
    rows = [{name: value for name, value in one.items() if n % 2 or name != "fee"} for n, one in enumerate(_ROWS)]
    path = _of(tmp_path / "trades.jsonl", "".join(json.dumps(one) + "\n" for one in rows[:29]))
    made = _kind(path).append(path, [_new_fill(29)], options=OPTIONS)
    assert made.rows == 29
    assert "fee" in made.left_out[0]


def test_a_snapshot_tells_what_a_later_copy_has_lost(tmp_path: Path) -> None:
    path = _of(tmp_path / "trades.json", document(2000))
    kind = _kind(path)
    mark = json.loads(json.dumps(kind.snapshot(path, tmp_path / "copy", options=OPTIONS).mark))
    assert len(json.dumps(mark)) < 4096

    def lost(rows: list[Any], **options: Any) -> list[str]:
        later = _of(tmp_path / "later.json", json.dumps(rows, indent=1))
        return [one.rule for one in kind.compare(later, mark, options=FormatOptions(**options))]

    rows = [record(number) for number in range(2010)]
    assert lost(rows) == []
    assert lost(rows[:2000]) == []
    assert lost([*rows[:1999], rows[1999] | {"side": "BUY"}]) == []
    assert lost(rows[:1999]) == ["C10"]
    assert lost([*rows[:1990], *rows[2000:], *rows[:10]]) == ["C10"]
    assert lost(rows[10:]) == ["C10"]
    assert lost(rows[10:], mode="rewrite") == []
    assert lost(rows[:1], mode="rewrite") == ["C10"]


def test_a_plan_stands_while_records_are_added_and_falls_with_another_content(tmp_path: Path) -> None:
    kind = FORMATS["json"]
    for name in ("an array", "TinyDB"):
        read = DOCUMENTS[name]
        for style in ({}, {"indent": 2}):
            path = _of(tmp_path / "trades.json", json.dumps(_without(read, 20), **style))
            seen = json.loads(json.dumps(kind.evidence(path)))
            assert kind.stands(path, seen)
            _of(path, json.dumps(read, **style))
            assert kind.stands(path, seen)
            _of(path, json.dumps(_without(read, 19), **style))
            assert not kind.stands(path, seen)
            _of(path, json.dumps(read, **style).replace("1003", "1004"))
            assert not kind.stands(path, seen)
            path.unlink()
            assert not kind.stands(path, seen)
            assert kind.evidence(path) == {}
            assert kind.stands(path, {})


def test_a_rebuild_that_cannot_be_is_said_so_and_leaves_nothing(tmp_path: Path) -> None:
    page = _of(tmp_path / "trades.json", "<html>")
    for good in (None, _of(tmp_path / "good", "<html>")):
        with pytest.raises(BotkeepError, match="cannot be built"):
            _kind(page).rebuild(good, page, tmp_path / "new.json", options=OPTIONS)
    made, _ = _rebuilt(_of(tmp_path / "good.json", document(5)), page)
    assert (made.rows, made.kept) == (5, 5)
    with pytest.raises(BotkeepError, match="nothing to copy"):
        _kind(page).snapshot(tmp_path / "none.json", tmp_path / "x", options=OPTIONS)
    assert _no_mess(tmp_path)


def test_a_documents_reader_comes_back_from_its_cursor_or_not_at_all(tmp_path: Path) -> None:
    path = _of(tmp_path / "trades.json", json.dumps(DOCUMENTS["TinyDB"]))
    with regular(path) as source:
        reader = Kind().learn(source, OPTIONS)
        assert reader is not None
        saved = json.loads(json.dumps(reader.as_json()))
        assert Kind().again(saved, OPTIONS) == reader
    for broken in ({}, saved | {"x": 1}, saved | {"roles": {"price": 99}}, saved | {"names": None}):
        with pytest.raises((KeyError, TypeError, ValueError)):
            Kind().again(broken, OPTIONS)
