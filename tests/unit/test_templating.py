"""Templates that people edit: what works, and what every kind of slip in them costs: nothing but the edit."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from botkeep.pack import init
from botkeep.report_words import TEMPLATES, told
from botkeep.templating import OWN, PACKAGED, Rendered, plain, render, units
from botkeep.untrusted import register_secrets
from support.report_sample import NOW, sample

TEXT = TEMPLATES["text"]


def write(home: Path, source: str | bytes, name: str = TEXT) -> Path:
    """A person's own template."""
    path = home / OWN / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(source if isinstance(source, bytes) else source.encode())
    return path


def rendered(home: Path, kind: str = "text") -> Rendered:
    return told(sample(), NOW.tzinfo or pytest.fail("no zone"), kind, home=home)


def test_a_persons_own_template_is_used(tmp_path: Path) -> None:
    write(tmp_path, "{{ answer }}\n{% for one in bots %}{{ one.bot }} {{ one.share }}\n{% endfor %}")
    found = rendered(tmp_path)
    assert found.problem == ""
    assert found.text.splitlines()[1:] == [
        "doge-long 99.8%", "doge-short 100%", "btc-optimized 91.6%", "hummingbot-mm 100%",
    ]  # fmt: skip


def test_a_copy_that_nobody_edited_is_as_quick_as_the_packaged_one(tmp_path: Path, monkeypatch: Any) -> None:
    init(tmp_path, NOW)
    assert {path.name for path in (tmp_path / OWN).iterdir()} == {path.name for path in PACKAGED.glob("*.j2")}
    expected = told(sample(), NOW.tzinfo or pytest.fail("no zone"), "text").text
    monkeypatch.setattr("botkeep.templating.sys.executable", "/no/such/python")
    assert rendered(tmp_path) == Rendered(expected)
    write(tmp_path, "{{ answer }}")
    assert "no process could be started for it" in rendered(tmp_path).problem, "an edited one needs one"


def test_one_block_can_be_replaced_and_the_rest_is_as_packaged(tmp_path: Path) -> None:
    write(
        tmp_path, '{% extends "packaged/health_report.txt.j2" %}\n{% block goals %}\n\nNo goals today.\n{% endblock %}'
    )
    found = rendered(tmp_path)
    assert found.problem == ""
    assert "No goals today." in found.text
    assert "uptime over 99.5" not in found.text
    assert found.text.startswith("🤖 Bot Health Report - 2026-11-21: ")


BROKEN: dict[str, tuple[str | bytes, str]] = {
    "a syntax error": ("one\n{% for %}", ":2: TemplateSyntax: "),
    "a tag that is not closed": ("one\n{% if fine %}\ntwo", ": TemplateSyntax: "),
    "an undefined name": ("one\n\n{{ answr }}", ":3: Undefined: 'answr' is undefined"),
    "an attribute that is not there": ("{% for one in bots %}\n{{ one.colour }}\n{% endfor %}", ":2: Undefined: "),
    "the way out of the sandbox": ("one\n{{ answer.__class__.__mro__[1].__subclasses__() }}", ":2: Security: "),
    "another way out": ("{{ ''|attr('__class__') }}", ":1: "),
    "the way over a format": ("{{ '{0.__class__.__init__.__globals__}'.format(answer) }}", ":1: Security: "),
    "a filter that is not there": ("{{ answer | safe }}", ":1: TemplateAssertion: No filter named 'safe'"),
    "an endless range": ("one\n{% for i in range(10**9) %}{% endfor %}", ":2: Overflow: "),
    "a loop in a loop": (
        "one\n{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        ":2: it takes longer than 5 s",
    ),
    "a number that never ends": ("{{ 10 ** (10 ** 10) }}", "it takes "),
    "all the memory": ("{{ 'x' * 10 ** 12 }}", "it takes more than 512 MiB of memory"),
    "an endless text": (
        "{% for a in range(99999) %}" + "x" * 1000 + "{% endfor %}",
        "it writes more than 16 million characters",
    ),
    "itself again and again": ('{% include "health_report.txt.j2" %}', "Recursion: "),
    "what it cannot change": ("{{ bots.append(1) }}", ":1: Security: "),
    "another file": ('{% include "../../config/bots.json" %}', ":1: TemplateNotFound"),
    "nothing": (b"", ": it gives no text at all"),
    "nothing that is seen": ("{% if not bots %}x{% endif %}\n\n", ": it gives no text at all"),
    "not UTF-8": (b"one\ntwo\n\xff\xfe", ":3: it is not UTF-8"),
    "as large as a log": ("x" * 300_000, ": "),
}  # fmt: skip


@pytest.mark.parametrize(("source", "said"), BROKEN.values(), ids=BROKEN)
def test_a_broken_edit_costs_nothing_but_the_edit_and_is_named_with_file_and_line(
    source: str | bytes, said: str, tmp_path: Path
) -> None:
    write(tmp_path, source)
    began = time.monotonic()
    found = rendered(tmp_path)
    assert time.monotonic() - began < 25
    assert found.problem.startswith("templates/health_report.txt.j2")
    assert said in found.problem
    assert "The packaged template was used instead" in found.problem
    assert "Uptime (24h):\n- doge-long: 99.8%" in found.text
    assert "To Mend:\n" in found.text
    assert "- templates/health_report.txt.j2" in found.text


def test_what_is_no_file_is_no_template(tmp_path: Path) -> None:
    (tmp_path / OWN).mkdir()
    os.mkfifo(tmp_path / OWN / TEXT)
    assert "is not a regular file" in rendered(tmp_path).problem
    (tmp_path / OWN / TEXT).unlink()
    (tmp_path / OWN / TEXT).mkdir()
    assert rendered(tmp_path).problem.startswith("templates/health_report.txt.j2: ")


def test_without_a_folder_of_templates_nothing_is_said(tmp_path: Path) -> None:
    assert rendered(tmp_path).problem == ""
    (tmp_path / OWN).write_text("a file")
    assert rendered(tmp_path).problem == ""


def test_a_page_of_ones_own_escapes_what_bots_wrote_and_still_has_its_pictures(tmp_path: Path) -> None:
    name = TEMPLATES["html"]
    write(tmp_path, "{{ '<b>' ~ answer }}{{ 'timeline' | picture }}{{ answer | picture }}", name)
    found = rendered(tmp_path, "html")
    assert found.problem == ""
    assert found.text.startswith("&lt;b&gt;2 of 4 fine")
    assert found.text.count("<svg") == 1


def test_secrets_known_by_their_value_are_gone_before_the_template_sees_them(tmp_path: Path) -> None:
    register_secrets(["correct-horse-battery"])
    write(tmp_path, "{{ words }}", "x.txt.j2")
    context: dict[str, Any] = {"words": "it said correct-horse-battery", "problems": []}
    assert render("x.txt.j2", [context], home=tmp_path).text == r"it said \[redacted\]"


def test_the_fullest_text_that_fits_is_taken_and_the_last_is_cut_at_a_line(tmp_path: Path) -> None:
    write(tmp_path, "{% for one in lines %}{{ one }}\n{% endfor %}", "x.txt.j2")
    full, less = {"lines": ["🤖" * 30] * 40}, {"lines": ["🤖" * 30] * 4}
    assert render("x.txt.j2", [full, less], home=tmp_path, limit=5000).text.count("\n") == 40
    assert render("x.txt.j2", [full, less], home=tmp_path, limit=300).text.count("\n") == 4
    cut = render("x.txt.j2", [full, less], home=tmp_path, limit=200).text
    assert units(cut) <= 200
    assert cut.splitlines()[-1].startswith("… cut")
    assert cut.splitlines()[0] == "🤖" * 30


def test_telegram_counts_an_emoji_twice() -> None:
    assert (units("abc"), units("🤖"), units("é"), units("")) == (3, 2, 1, 0)


def test_numbers_stay_numbers_for_a_template() -> None:
    assert plain(7) == 7
