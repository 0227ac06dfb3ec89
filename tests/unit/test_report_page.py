"""The report as one HTML page: whole by itself, valid, escaped, as wide as a phone; and its pictures."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from botkeep.model import Status
from botkeep.report import BotReport, Deed, HealthReport, Told
from botkeep.report_pictures import KEPT, inline, kept_pictures, pictures
from botkeep.report_words import told
from botkeep.uptime import Uptime
from support.report_sample import DAY, HOUR, NOW, SINCE, bot, sample

LISBON = ZoneInfo("Europe/Lisbon")
VOID = {"meta", "br", "hr", "img", "input", "link", "rect", "line", "path"}
HOSTILE = [
    "<script>alert(1)</script>",
    "</title><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "</style><style>body{display:none}",
    "</svg><a href=https://evil.example>x</a>",
    "{{ 7 * 7 }} {% raw %} <!--",
    "&lt;b&gt; &amp;",
    "\x1b[31m\u202e\u200b\x00",
]


class Strict(HTMLParser):
    """Fails for what is not closed in its order, an attribute twice, and an id twice; remembers every tag."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), self.getpos()
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, self.getpos()
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(page: str) -> Strict:
    """The page, read by the rules."""
    assert page.startswith("<!DOCTYPE html>\n")
    found = Strict()
    found.feed(page)
    found.close()
    assert found.open == []
    return found


def page_of(report: HealthReport) -> str:
    found = told(report, LISBON, "html")
    assert found.problem == ""
    return found.text


def hostile(words: str) -> HealthReport:
    """A report in which everything that others write says that."""
    found = sample()
    return replace(
        found,
        bots=(replace(found.bots[2], sentence=words, pnl=words), *found.bots[:2]),
        actions=(Deed(NOW - HOUR, "doge-long", "restart", words, words, "e1"),),
        told=(Told(NOW - HOUR, words, words, "e2"),),
        problems=(words,),
        incidents=(words,),
    )


def test_a_page_is_valid_and_asks_nobody_for_anything() -> None:
    page = page_of(sample())
    found = parsed(page)
    names = {tag for tag, _ in found.tags}
    assert {"html", "head", "title", "style", "main", "svg", "article"} <= names
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form", "image", "use"} & names
    for tag, attributes in found.tags:
        assert not {"src", "href", "xlink:href", "action", "srcset", "data", "style"} & attributes.keys(), tag
        assert not [name for name in attributes if name.startswith("on")], tag
    assert not re.search(r"https?:|//|url\(|@import|@font-face|expression\(", page)
    assert "default-src 'none'" in page


def test_a_page_is_made_for_phones_and_for_the_dark() -> None:
    page = page_of(sample())
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert "@media screen and (prefers-color-scheme: dark)" in page, "on paper, dark is not readable"
    assert '<meta name="color-scheme" content="light dark">' in page
    assert "overflow-wrap: anywhere" in page
    assert not re.search(r"[^-]width: (4\d\d|[5-9]\d\d|\d{4})px", page), "nothing is wider than a phone by itself"


def test_a_page_says_what_the_text_says() -> None:
    words = " ".join(" ".join(parsed(page_of(sample())).text).split())
    for said in (
        "2 of 4 fine, btc-optimized needs you (api-key-rejected)",
        "botkeep approve e55",
        "not before 08:15: that was done twice, and has to back off",
        "03:15 out-of-memory",
        "27 trades (usually 3.1 a day)",
        "long 0.012 BTC/USDT at 61000.5 USDT, +2.99 USDT at 61250 (its own API)",
        "proven by a restore 3.0 d ago",
        "uptime over 99.5 % a week: 99.4% (doge-long, the lowest)",
        "no alerts before 09:00: moving it to the new server",
        "woken 2 times, 1 failed, 3,400 tokens, $0.02 (e51, e52)",
        "playbooks/bot-hung.md:4",
        "Europe/Lisbon (WET)",
    ):
        assert said in words, said


@pytest.mark.parametrize("words", HOSTILE)
def test_nothing_that_bots_write_works_in_a_page(words: str) -> None:
    quiet, loud = parsed(page_of(hostile("x"))), parsed(page_of(hostile(words)))
    assert [tag for tag, _ in quiet.tags] == [tag for tag, _ in loud.tags]
    assert "\u202e" not in "".join(loud.text)
    assert "49" not in " ".join(loud.text)


def test_every_bot_has_its_strip_and_what_is_down_is_seen_however_short() -> None:
    found = inline(sample(), ["doge-long", "hummingbot-mm"])
    assert set(found) == {
        "timeline",
        "strip:doge-long",
        "curve:doge-long",
        "strip:hummingbot-mm",
        "curve:hummingbot-mm",
    }
    bars = re.findall(r'class="s-(\w+)" x="([\d.]+)" y="\d+" width="([\d.]+)"', found["strip:doge-long"])
    assert [kind for kind, *_ in bars] == ["up", "up", "down"]
    assert float(bars[-1][2]) >= 3
    assert sum(float(wide) for kind, _, wide in bars if kind == "up") == pytest.approx(1000 * (24 - 0.05) / 24, abs=0.1)
    assert 'aria-label="doge-long: uptime 99.8%, down 2 min, unknown 2 min"' in found["strip:doge-long"]


def test_the_timeline_has_a_mark_for_each_action_and_message() -> None:
    line = inline(sample(), [])["timeline"]
    assert (line.count("e-action"), line.count("e-alert"), line.count("e-resolved")) == (2, 2, 1)
    assert line.count('e-axis" x') == 1 + 24


def test_a_bot_without_a_data_file_and_one_that_nobody_saw_have_no_curve() -> None:
    bare = BotReport("bare", Status.UNKNOWN, "", Uptime(unknown=24 * HOUR))
    report = HealthReport(NOW, SINCE, (bare,))
    assert set(inline(report, ["bare"])) == {"timeline", "strip:bare"}
    words = " ".join(parsed(page_of(report)).text)
    assert "not known" in words
    assert "P&L" not in words


def test_a_page_without_bots_is_a_page() -> None:
    assert "No bots are configured." in " ".join(parsed(page_of(HealthReport(NOW, SINCE))).text)


def test_a_thousand_bots_are_a_page_of_a_size_that_a_phone_opens() -> None:
    many = tuple(bot(f"bot-{n}") for n in range(1000))
    page = page_of(replace(sample(), bots=(*sample().bots, *many)))
    parsed(page)
    assert len(page) < 3_000_000
    assert page.count("<article") == 200
    assert "804 others: " in page
    assert page.index(">btc-optimized <") < page.index(">bot-0 <")


if shutil.which("chromium"):  # not skipped: a machine without a browser has one test less

    def test_nothing_is_wider_than_a_phone(tmp_path: Path) -> None:
        """A real browser lays it out, with words as long as they may be: nothing is to be scrolled sideways."""
        long = replace(
            hostile("x" * 390), bots=(bot("a" * 63, sentence="y" * 390, status=Status.FAULTY), *sample().bots)
        )
        frames = "".join(
            f'<iframe id="{name}" style="width:390px;height:900px;border:0" srcdoc="{escape(page_of(one))}"></iframe>'
            for name, one in (("usual", sample()), ("long", long))
        )
        script = (
            "onload = () => document.title = JSON.stringify(['usual', 'long'].map(id => "
            "document.getElementById(id).contentDocument.documentElement)"
            ".map(one => one.scrollWidth - one.clientWidth))"
        )
        (tmp_path / "frames.html").write_text(f"<!DOCTYPE html><meta charset=utf-8>{frames}<script>{script}</script>")
        flags = (
            "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
            "--disable-component-update --disable-sync --dump-dom --window-size=1280,2000"
        )
        command = ["chromium", *flags.split(), f"--user-data-dir={tmp_path}/profile", f"file://{tmp_path}/frames.html"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        title = re.search(r"<title>(\[.*?\])</title>", done.stdout)
        assert title, done.stderr[-500:]
        assert json.loads(title[1]) == [0, 0]


# --- PNG ---------------------------------------------------------------------------------------------------------


def size(png: Path) -> tuple[int, int]:
    """As the header of the file says."""
    head = png.read_bytes()[:24]
    assert head.startswith(b"\x89PNG\r\n\x1a\n")
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def test_the_same_pictures_come_as_png_the_uptime_first(tmp_path: Path) -> None:
    made = pictures(sample(), tmp_path / "new", LISBON)
    assert [path.name for path in made] == ["2026-11-21-0800-uptime.png", "2026-11-21-0800-equity.png"]
    assert [size(path)[0] for path in made] == [1600, 1600]
    before = [path.read_bytes() for path in made]
    assert [path.read_bytes() for path in pictures(sample(), tmp_path / "new", LISBON)] == before


def test_pictures_of_a_large_fleet_are_no_larger_than_a_message_takes(tmp_path: Path) -> None:
    many = tuple(bot(f"{'b' * 50}-{n}") for n in range(200))
    made = pictures(replace(sample(), bots=(*many, *sample().bots)), tmp_path)
    assert all(size(path)[1] <= 3200 for path in made)
    assert sum(path.stat().st_size for path in made) < 1_000_000


def test_a_fleet_that_earned_nothing_has_no_equity_and_none_has_no_picture(tmp_path: Path) -> None:
    bare = BotReport("交易 $x$", Status.UNKNOWN, "", Uptime(unknown=24 * HOUR))
    assert len(pictures(HealthReport(NOW, SINCE, (bare,)), tmp_path)) == 1
    assert pictures(HealthReport(NOW, SINCE), tmp_path) == []


def test_pictures_are_kept_for_as_long_as_a_message_may_wait(tmp_path: Path) -> None:
    import os

    old, young = tmp_path / "old.png", tmp_path / "young.png"
    for path, age in ((old, KEPT + DAY), (young, KEPT - DAY)):
        path.write_bytes(b"x")
        os.utime(path, ((NOW - age).timestamp(),) * 2)
    made = kept_pictures(sample(), tmp_path, UTC)
    assert set(tmp_path.iterdir()) == {young, *made}
