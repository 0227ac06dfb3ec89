"""A bot that its exchange refuses polls less for a while: by the file that its `limits` name, and by nothing else."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from botkeep.cli import main
from botkeep.ledger import Entry, Kind
from botkeep.model import Action, ActionReport, Actor, Fault, Result, utc_now
from botkeep.rounds import RoundReport
from support import forks, kills
from support.fleet import Fleet, alive, fleet, wait_for
from support.limited_exchange import Exchange, exchange

SOURCE = Path(__file__).parents[1] / "support/polite_bot.py"
NORMAL: dict[str, Any] = {"poll_ms": 20}
REDUCED: dict[str, Any] = {"poll_ms": 600, "why": "the exchange asked for it"}
FILE = "bot/polling.json"
LIMIT = 15
"""Questions a second: the normal pace is forty or so, the reduced one below two."""
SHORT = {r"wait: \w+": "wait: 1s", r"calm: \w+": "calm: 1s", r"reset_after: \w+": "reset_after: 3s"}
SLOW = 40.0
"""Seconds: only a test that fails waits so long."""


class Case:
    """One bot, its exchange and its polling file."""

    def __init__(self, found: Fleet, market: Exchange) -> None:
        self.fleet, self.market = found, market
        self.file = found.home / FILE

    def start(self) -> int:
        """Through botkeep; its pid, once it has asked something."""
        report = self.fleet.desk().restart("doge", "first start")
        assert report.result is Result.DONE, report.sentence
        wait_for(lambda: self.market.asked > 2)
        return int(report.pid or 0)

    def limited(self) -> int:
        """The same, once the exchange has refused it."""
        pid = self.start()
        wait_for(lambda: self.market.refused > 2)
        return pid

    def round(self, **ahead: float) -> RoundReport:
        """A round by code alone, so long from now."""
        return self.fleet.desk(Actor.ROUND, clock=lambda: utc_now() + timedelta(**ahead)).round()

    def polled(self, **ahead: float) -> ActionReport | None:
        """What a round did about polling."""
        return next((one for one in self.round(**ahead).actions if one.action is Action.POLL), None)

    def poll(self, how: str, reason: str = "I say so") -> ActionReport:
        """A person's word."""
        return self.fleet.desk(Actor.PERSON).poll("doge", reason, less=how == "less")

    def refused(self) -> str:
        """What a person hears who asks for a restart now; an assistant, within a minute of a start, only that."""
        refusal = self.fleet.desk(Actor.PERSON).restart("doge", "does it hang?")
        assert refusal.result is Result.REFUSED, refusal.sentence
        return refusal.sentence

    def holds(self) -> Any:
        """The file's document."""
        return json.loads(self.file.read_text())

    def entries(self, *kinds: Kind) -> list[Entry]:
        """What the ledger has about polling."""
        found = self.fleet.desk().ledger.entries(bot="doge", action="poll", kinds=kinds or None)
        assert self.fleet.desk().ledger.open_intents("doge") == []
        return found

    def calm(self) -> None:
        """Wait until the bot asks so seldom that nothing is refused any more."""
        wait_for(lambda: self.market.rate() <= 3, SLOW)


def entry(market: Exchange, apply: str = "watched", *switches: str, **more: Any) -> dict[str, Any]:
    """The bot in bots.json."""
    polling = {"file": FILE, "normal": NORMAL, "reduced": REDUCED, "apply": apply}
    command = [sys.executable, "bot/polite_bot.py", market.url, FILE, *switches]
    runtime = {"kind": "process", "command": command, "stop_grace": 2, "env": {"TZ": "UTC"}}
    return {"name": "doge", "runtime": runtime, "limits": {"polling": polling}, **more}


@contextmanager
def case(home: Path, market: Exchange, written: dict[str, Any]) -> Iterator[Case]:
    """A workspace with this bot; its file holds `normal`, written by a person's hand."""
    (home / "bot").mkdir(parents=True)
    shutil.copy(SOURCE, home / "bot/polite_bot.py")
    with fleet(home, written) as found:
        for pattern, short in SHORT.items():
            found.edit("api-rate-limited", pattern, short)
        one = Case(found, market)
        one.file.write_text('{"poll_ms":   20.0}\n')
        one.file.chmod(0o640)
        yield one


@pytest.fixture
def market() -> Iterator[Exchange]:
    """It refuses whoever asks too often."""
    with exchange(LIMIT) as found:
        yield found


@pytest.fixture
def one(tmp_path: Path, market: Exchange) -> Iterator[Case]:
    """A bot that reads its file again before each question."""
    with case(tmp_path / "home", market, entry(market)) as found:
        yield found


# ---------------------------------------------------------------------------------------------------- less, and back


def test_a_bot_that_is_refused_polls_less_until_the_exchange_is_calm_again(one: Case) -> None:
    pid = one.limited()
    done = one.polled()
    assert done is not None
    assert done.result is Result.DONE, done.sentence
    assert done.sentence.startswith("doge polls less; ")
    assert done.sentence in one.fleet.journal().replace("\\", "")
    assert one.holds() == REDUCED
    one.calm()
    refused, asked = one.market.refused, one.market.asked
    wait_for(lambda: one.market.asked > asked + 4)
    assert one.market.refused == refused, "it asks so seldom that it is never refused"

    back = wait_for(one.polled, SLOW)
    assert back.result is Result.DONE
    assert back.sentence.startswith("doge polls as usual; ")
    assert one.holds() == NORMAL
    wait_for(lambda: one.market.rate() > LIMIT)
    assert alive(pid), "nothing was restarted"
    assert [(entry.kind, entry.data["to"], entry.actor) for entry in one.entries()] == [
        (kind, to, "round") for to in ("reduced", "normal") for kind in (Kind.INTENT, Kind.OUTCOME)
    ]


def test_while_the_limit_stands_a_second_round_does_nothing_more(one: Case) -> None:
    one.limited()
    assert one.polled() is not None
    one.market.ban(600)
    wait_for(lambda: one.fleet.verdict().fault is Fault.API_RATE_LIMITED)
    assert one.polled() is None
    assert len(one.entries()) == 2


def test_the_file_keeps_its_owner_and_its_mode_and_holds_what_the_person_wrote(one: Case) -> None:
    if os.geteuid() == 0:
        os.chown(one.file, 1000, 1001)
    before = one.file.stat()
    one.limited()
    one.round()
    after = one.file.stat()
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert one.file.read_text() == '{\n  "poll_ms": 600,\n  "why": "the exchange asked for it"\n}\n'
    assert sorted(path.name for path in one.file.parent.iterdir()) == ["polite_bot.py", "polling.json"]


def test_a_restart_that_is_refused_says_what_is_done_instead(one: Case) -> None:
    one.limited()
    one.market.ban(600)
    assert "Its polling is not reduced yet: a round does it, or a person: `botkeep poll doge less" in one.refused()
    one.round()
    assert f"Its polling is reduced since {utc_now():%Y-%m-%d}" in one.refused()


def test_a_bot_without_such_a_setting_is_left_as_it_is(tmp_path: Path, market: Exchange) -> None:
    with case(tmp_path / "home", market, entry(market, limits={})) as one:
        one.limited()
        before = identity(one.file)
        assert one.polled() is None
        assert "Its polling cannot be reduced: no `limits.polling` is configured for it." in one.refused()
        asked = one.poll("less")
        assert asked.result is Result.REFUSED
        assert "no `limits.polling` is configured" in asked.sentence
        assert identity(one.file) == before
        assert one.entries() == []


def test_a_playbook_that_does_not_allow_it_leaves_it_to_the_person(one: Case) -> None:
    one.fleet.edit("api-rate-limited", r"actions: \[poll_less\]", "actions: []")
    one.limited()
    assert one.polled() is None
    assert one.poll("less").result is Result.DONE
    assert one.holds() == REDUCED


def test_a_playbook_that_asks_first_is_answered_once(one: Case) -> None:
    one.fleet.edit("api-rate-limited", "mode: auto", "mode: ask")
    one.limited()
    asked, again = one.polled(), one.polled()
    assert asked is not None
    assert again is not None
    assert (asked.result, asked.approval) == (Result.ASKED, again.approval)
    assert one.holds() == NORMAL
    one.fleet.desk(Actor.PERSON).approve(str(asked.approval), "ann")
    done = one.polled()
    assert done is not None
    assert done.result is Result.DONE
    assert one.holds() == REDUCED
    back = wait_for(one.polled, SLOW)
    assert (back.result, one.holds()) == (Result.DONE, NORMAL), "putting back what was there needs no approval"
    wait_for(lambda: one.market.rate() > LIMIT)
    assert wait_for(one.polled).result is Result.ASKED, "an approval is for one time"


def test_a_bot_that_meets_the_limit_again_and_again_stays_reduced_for_the_day(one: Case) -> None:
    one.fleet.edit("api-rate-limited", r"max_per_day: \d+", "max_per_day: 1")
    one.limited()
    assert one.polled() is not None
    assert wait_for(one.polled, SLOW).data["to"] == "normal"
    wait_for(lambda: one.market.rate() > LIMIT)
    assert wait_for(one.polled).data["to"] == "reduced"
    one.calm()
    wait_for(lambda: one.fleet.verdict().fault is None, SLOW)
    asked = one.market.asked
    wait_for(lambda: one.market.asked > asked + 8)
    assert one.polled() is None
    assert one.holds() == REDUCED
    assert one.polled(hours=25) is not None


# ---------------------------------------------------------------------------------------------------- people


def test_what_a_person_reduced_stays_until_a_person_puts_it_back(one: Case, capsys: pytest.CaptureFixture[str]) -> None:
    one.market.limit = None
    one.start()
    assert main(["--home", str(one.fleet.home), "poll", "doge", "less", "they wrote to us"]) == 0
    said = capsys.readouterr().out
    assert "doge polls less" in said
    assert "until a person runs `botkeep poll doge normal REASON`" in said
    assert "Reason: they wrote to us." in said
    one.calm()
    assert one.polled(days=3) is None
    assert main(["--home", str(one.fleet.home), "poll", "doge", "normal", "they wrote again"]) == 0
    assert one.holds() == NORMAL


def test_a_person_who_says_what_a_round_did_already_makes_it_last(one: Case) -> None:
    one.limited()
    one.round()
    said = one.poll("less", "for the week")
    assert said.result is Result.DONE
    assert one.poll("less", "for the week").result is Result.COALESCED
    one.calm()
    wait_for(lambda: one.fleet.verdict().fault is None, SLOW)
    assert one.polled(days=1) is None
    assert one.holds() == REDUCED


def test_what_a_person_put_back_is_not_reduced_again_at_once(one: Case) -> None:
    one.fleet.edit("api-rate-limited", r"reset_after: \w+", "reset_after: 60m")
    one.limited()
    one.round()
    assert one.poll("normal", "I watch it").result is Result.DONE
    wait_for(lambda: one.market.rate() > LIMIT)
    assert one.polled() is None
    assert one.polled(minutes=59) is None
    wait_for(lambda: one.fleet.desk().check().verdicts[0].fault is Fault.API_RATE_LIMITED)
    assert one.holds() == NORMAL


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["doge", "les", "x"], 'There is no how "les"; did you mean less?'),
        (["doge", "less"], "the following arguments are required: REASON"),
        (["doge", "less", " "], "The reason is empty"),
        (["dogge", "less", "x"], 'There is no bot "dogge"'),
    ],
)
def test_a_wrong_call_is_one_line(one: Case, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert main(["--home", str(one.fleet.home), "poll", *words]) == 2
    assert said in capsys.readouterr().err
    assert one.entries() == []


# ---------------------------------------------------------------------------------------------------- what is not ours


def identity(file: Path) -> tuple[int, ...]:
    """Other numbers as soon as somebody touches it."""
    seen = file.lstat()
    return seen.st_ino, seen.st_mode, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns


def spoilt(text: str) -> Callable[[Path], None]:
    return lambda file: (file.write_text(text), None)[1]


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


EDITS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a value": (spoilt('{"poll_ms": 25}'), "somebody edited it"),
    "a key more": (spoilt('{"poll_ms": 20, "dry_run": false}'), "somebody edited it"),
    "true for one": (spoilt('{"poll_ms": true}'), "somebody edited it"),
    "a comment": (spoilt('{"poll_ms": 20} // mine'), "no sound JSON"),
    "a key twice": (spoilt('{"poll_ms": 20, "poll_ms": 20}'), "no sound JSON"),
    "an absurd number": (spoilt('{"poll_ms": 1e99999999999999999999}'), "no sound JSON"),
    "a deep hole": (spoilt("[" * 50_000), "no sound JSON"),
    "nothing": (spoilt(""), "no sound JSON"),
    "a large file": (spoilt(" " * 300_000 + "{}"), "has more than"),
    "a folder": (_folder, "not a regular file"),
    "a pipe": (_fifo, "not a regular file"),
    "no file": (Path.unlink, "there is no "),
}


@pytest.mark.parametrize("kind", EDITS)
def test_a_file_that_is_neither_of_the_two_documents_is_left_alone(tmp_path: Path, market: Exchange, kind: str) -> None:
    edit, said = EDITS[kind]
    with case(tmp_path / "home", market, entry(market, "watched", "--once")) as one:
        one.limited()
        edit(one.file)
        before = kind != "no file" and identity(one.file)
        done = one.round()
        refusal = next(report for report in done.actions if report.action is Action.POLL)
        assert refusal.result is Result.REFUSED
        assert said in refusal.sentence
        assert [alert.sentence for alert in done.alerts if "told to poll" in alert.sentence] == [refusal.sentence]
        assert not [alert for alert in one.round().alerts if "told to poll" in alert.sentence], "people are told once"
        assert said in one.refused()
        if before:
            assert one.poll("normal").result is Result.REFUSED
            assert identity(one.file) == before
        else:
            assert not one.file.exists()
        assert one.entries() == []


def test_a_file_that_is_not_there_is_made_by_a_person_alone(one: Case) -> None:
    one.file.unlink()
    refused = one.fleet.desk().poll("doge", "an assistant asks", less=True)
    assert refused.result is Result.REFUSED
    assert "`botkeep poll doge normal REASON`" in refused.sentence
    assert one.poll("normal").result is Result.DONE
    assert one.holds() == NORMAL
    assert one.file.stat().st_mode & 0o777 == 0o644
    one.limited()
    assert wait_for(one.polled).result is Result.DONE
    assert one.holds() == REDUCED


def test_a_read_only_file_is_somebodys_word(one: Case) -> None:
    one.limited()
    one.file.chmod(0o444)
    refused = one.polled()
    assert refused is not None
    assert refused.result is Result.REFUSED
    assert f"chmod u+w {one.file}" in refused.sentence
    assert one.holds() == NORMAL
    assert one.entries() == []
    one.file.chmod(0o644)
    done = one.polled()
    assert done is not None
    assert done.result is Result.DONE


def test_what_cannot_be_written_is_said_and_tried_again_by_the_back_off(one: Case) -> None:
    one.limited()
    in_the_way = one.file.with_name(".polling.json.botkeep")
    in_the_way.mkdir()
    done = one.round()
    failed = next(report for report in done.actions if report.action is Action.POLL)
    assert failed.result is Result.FAILED
    assert "cannot be written" in failed.sentence
    assert any(alert.sentence == failed.sentence for alert in done.alerts)
    assert not done.fine
    assert one.holds() == NORMAL
    in_the_way.rmdir()
    assert one.polled() is None, "the playbook's back-off is not over"
    one.fleet.edit("api-rate-limited", r"backoff: \[.*\]", "backoff: [0s]")
    again = one.polled()
    assert again is not None
    assert again.result is Result.DONE
    assert one.holds() == REDUCED


def test_a_link_that_somebody_put_in_the_way_of_the_writer_leads_nowhere(one: Case) -> None:
    precious = one.fleet.home / "precious"
    precious.write_text("keys")
    one.file.with_name(".polling.json.botkeep").hardlink_to(precious)
    assert one.poll("less").result is Result.DONE
    assert precious.read_text() == "keys"
    one.file.with_name(".polling.json.botkeep").symlink_to(precious)
    assert one.poll("normal").result is Result.DONE
    assert precious.read_text() == "keys"
    assert one.holds() == NORMAL


# -------------------------------------------------------------------------------------------------- at once, and killed


def test_two_rounds_at_once_tell_it_once(one: Case) -> None:
    one.limited()
    for desk in one.fleet.desks:
        desk.close()
    forks.finish([forks.start(lambda: (one.round(), None)[1]) for _ in range(3)])
    assert one.holds() == REDUCED
    assert [entry.result for entry in one.entries(Kind.OUTCOME)] == [Result.DONE]
    assert len(one.entries(Kind.INTENT)) == 1


@kills.needs_strace
def test_wherever_a_round_is_killed_the_file_is_whole_and_the_next_one_finishes(one: Case) -> None:
    one.market.limit = None
    one.start()
    mode = one.file.stat().st_mode
    at = 0

    def work() -> None:
        one.fleet.desk(Actor.PERSON).poll("doge", "a test says so", less=True)

    def prepare() -> None:
        assert one.poll("normal").ok
        for desk in one.fleet.desks:
            desk.close()
        one.fleet.desks.clear()

    calls = ("write", "pwrite64", "fsync", "fdatasync", "rename", "unlink", "fchmod", "fchown")
    for call, number in kills.at_each_call(work, prepare, calls):
        at += 1
        assert one.holds() in (NORMAL, REDUCED), (call, number)
        assert one.file.stat().st_mode == mode
        was = one.holds()
        one.fleet.desk(Actor.ROUND).check()
        said = one.entries(Kind.OUTCOME)[-1]
        if said.data.get("reconciled"):
            assert said.result == (Result.DONE if was == REDUCED else Result.FAILED), (call, number)
        assert one.poll("less").ok
        assert one.holds() == REDUCED
        assert [path.name for path in one.file.parent.iterdir() if path.name.startswith(".")] == []
    assert at > 10
    assert one.fleet.desk().journal.verify(utc_now()) == []


# --------------------------------------------------------------------------------------------------- not read by itself


def test_a_bot_that_reads_its_file_only_when_it_starts_polls_less_from_then_on(
    tmp_path: Path, market: Exchange
) -> None:
    with case(tmp_path / "home", market, entry(market, "restart", "--once")) as one:
        pid = one.limited()
        done = one.polled()
        assert done is not None
        assert done.sentence.startswith("doge polls less, from its next start on; ")
        assert one.market.rate() > LIMIT
        assert one.polled() is None
        assert "from its next start on" in one.refused()
        assert one.fleet.desk(Actor.PERSON).restart("doge", "so that it polls less", override="I insist").ok
        assert not alive(pid)
        one.calm()


def test_a_bot_that_never_read_the_reduced_setting_needs_no_start_to_poll_as_usual(
    tmp_path: Path, market: Exchange
) -> None:
    market.limit = None
    with case(tmp_path / "home", market, entry(market, "restart", "--once")) as one:
        one.start()
        assert ", from its next start on;" in one.poll("less").sentence
        assert one.poll("normal").sentence.startswith("doge polls as usual; ")
        assert ", from its next start on;" in one.poll("less").sentence
        assert one.fleet.desk(Actor.PERSON).restart("doge", "so that it polls less", override="I insist").ok
        assert ", from its next start on;" in one.poll("normal").sentence


def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Reloading:
    """A bot whose API is told to reload."""

    def __init__(self, home: Path, market: Exchange) -> None:
        self.home, self.market, self.port = home, market, port()
        self.url = f"http://127.0.0.1:{self.port}"

    def entry(self, state: str = "running") -> dict[str, Any]:
        switches = ("--once", "--api", str(self.port), "--state", state)
        return entry(self.market, "reload", *switches, profile="freqtrade", api={"url": self.url})

    def tell(self, word: str) -> None:
        """What a person says to the bot itself."""
        request = urllib.request.Request(f"{self.url}/api/v1/{word}", method="POST")
        urllib.request.urlopen(request, timeout=5).close()

    def state(self) -> str:
        with urllib.request.urlopen(f"{self.url}/api/v1/show_config", timeout=5) as answer:
            return str(json.loads(answer.read())["state"])


@pytest.fixture
def api(tmp_path: Path, market: Exchange) -> Reloading:
    return Reloading(tmp_path / "home", market)


def test_a_bot_is_told_to_reload_only_after_the_exchange_has_stopped_refusing(api: Reloading) -> None:
    with case(api.home, api.market, api.entry()) as one:
        api.market.limit = None
        pid = one.start()
        api.market.ban(4)
        wait_for(lambda: api.market.refused > 2)
        done = one.polled()
        assert done is not None
        assert (done.result, done.data["applied"]) == (Result.DONE, False), done.sentence
        assert done.earliest is not None
        assert abs(done.earliest.timestamp() - api.market.banned_until) < 1
        assert "once it can be told to reload, not before" in done.sentence
        assert one.holds() == REDUCED
        assert one.polled() is None
        assert "or once its API can be told to reload" in one.refused()
        assert "/exchangeInfo" not in api.market.paths

        told = wait_for(one.polled, SLOW)
        assert (told.result, told.data["applied"]) == (Result.DONE, True), told.sentence
        assert "and was told to reload" in told.sentence
        one.calm()
        assert time.time() > api.market.banned_until
        assert api.market.paths.count("/exchangeInfo") == 1
        back = wait_for(one.polled, SLOW)
        assert back.data == {"to": "normal", "written": True, "applied": True}
        wait_for(lambda: api.market.rate() > LIMIT)
        assert alive(pid)


@pytest.mark.parametrize("state", ["paused", "stopped"])
def test_a_bot_that_a_person_paused_is_not_woken_by_a_reload(api: Reloading, state: str) -> None:
    api.market.limit = None
    with case(api.home, api.market, api.entry()) as one:
        one.start()
        api.tell({"paused": "pause", "stopped": "stop"}[state])
        said = one.poll("less")
        assert said.result is Result.DONE
        assert f"its own state is {state}" in said.sentence
        assert one.holds() == REDUCED
        assert one.polled() is None
        assert api.state() == state
        back = one.poll("normal")
        assert back.sentence.startswith("doge polls as usual; "), "it never read the other one: no reload is needed"
        assert one.poll("less").data["applied"] is False
        assert "/exchangeInfo" not in api.market.paths
        assert api.state() == state
        api.tell("start")
        told = one.polled()
        assert told is not None
        assert told.data["applied"] is True
        one.calm()


def test_a_bot_that_ends_at_its_reload_is_said_to_have_ended(api: Reloading) -> None:
    api.market.limit = None
    with case(api.home, api.market, api.entry()) as one:
        pid = one.start()
        api.market.closed = "/exchangeInfo"  # which nobody has asked for so far
        said = one.poll("less")
        assert said.result is Result.FAILED
        assert "doge ended when it was told to reload: it ended with exit code 2" in said.sentence
        assert not alive(pid)


def test_a_bot_that_comes_up_stopped_after_its_reload_is_said_to_a_person(api: Reloading) -> None:
    api.market.limit = None
    with case(api.home, api.market, api.entry("stopped")) as one:
        assert one.fleet.desk().restart("doge", "first start").ok
        wait_for(lambda: api.state() == "stopped")
        api.tell("start")
        said = one.poll("less")
        assert said.result is Result.FAILED
        assert "came up stopped when it was told to reload" in said.sentence
        assert api.state() == "stopped", "a person's own stop would look the same: it is not undone"


def test_a_caller_killed_between_the_file_and_the_reload_is_finished_by_the_next_round(api: Reloading) -> None:
    api.market.limit = None
    with case(api.home, api.market, api.entry()) as one:
        one.start()
        one.fleet.desks[-1].close()
        work = forks.start(lambda: (one.poll("less"), None)[1])
        wait_for(lambda: one.holds() == REDUCED)
        os.kill(work, signal.SIGKILL)
        os.waitpid(work, 0)
        wait_for(lambda: one.polled() or "/exchangeInfo" in api.market.paths, SLOW)
        one.calm()
        assert one.holds() == REDUCED
        assert all(entry.result == Result.DONE for entry in one.entries(Kind.OUTCOME))
