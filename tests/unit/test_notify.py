"""Channels, splitting and sending: through the real Apprise, against stand-ins of real services."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botkeep import notify
from botkeep.channels import Channel, channels_of, flaw_in, names_in
from botkeep.config import load_fleet
from botkeep.model import ConfigError
from botkeep.notify import Courier, Measure, Message, Outcome, directory, split, units
from botkeep.untrusted import redact
from botkeep.workspace import Workspace
from support import telegram as tg
from support.fleet import alive, wait_for
from support.telegram import CHATS, OTHER, TOKEN, Telegram, telegram
from support.webhook import webhook

VALUES = {"TOKEN": TOKEN, "CHAT": CHATS[0]}


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Telegram]:
    with telegram(tmp_path / "telegram") as found:
        for name, value in found.environment.items():
            monkeypatch.setenv(name, value)
        yield found


@pytest.fixture
def courier() -> Iterator[Courier]:
    with Courier() as found:
        yield found


def channel(entry: str = "tgram://${TOKEN}/${CHAT}", **values: str) -> Channel:
    (found,) = channels_of([entry], VALUES | values)
    return found


# ------------------------------------------------------------------------------------------- what may stand there


@pytest.mark.parametrize(
    "entry",
    [
        "tgram://${TOKEN}/${CHAT}", "tgram://${TOKEN}/-1001234567890:12/@channel", "tgram://${TOKEN}/?to=${CHATS}",
        "${WHOLE_URL}", "mailto://${USER}:${PASSWORD}@example.org", "json://${USER}:${PASSWORD}@hooks.lan:8080/alerts",
        "json://trading-bots-server-01.example.lan/alerts", "discord://${ID}/${SECRET}", "slack://${A}/${B}/${C}/#ops",
    ],
)  # fmt: skip
def test_an_address_whose_secrets_are_names_may_stand_in_notify(entry: str) -> None:
    assert flaw_in(entry) is None


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("me", 'found "me"; write an Apprise URL with its secrets as names, like tgram://${TELEGRAM_TOKEN}'),
        ("", "write an Apprise URL"),
        ("https://t.me/x y", "write an Apprise URL"),
        ("tgram://${TOKEN}", "name the chat too"),
        ("tgram://${TOKEN}/", "name the chat too"),
        ("tgram://$TOKEN/1", "write a name of a variable as ${NAME}"),
        (f"tgram://{TOKEN}/1", "it holds a Telegram bot token, and secrets are never written here"),
        ("mailto://${USER}:hunter2@example.org", "it holds a password"),
        ("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/", "it holds what looks like a token"),
        ("discord://1234567890/4f5e6d7c8b9a0f1e2d3c4b5a", "it holds what looks like a token"),
        ("json://h/" + "x" * 3000, "write at most 2048"),
    ],
)
def test_what_is_no_address_or_holds_a_secret_is_refused_with_what_to_write(entry: str, says: str) -> None:
    flaw = flaw_in(entry)
    assert flaw is not None
    assert says in flaw
    assert TOKEN not in flaw
    assert "hunter2" not in flaw


def test_a_telegram_address_with_several_chats_is_one_channel_for_each() -> None:
    found = list(channels_of(["tgram://${TOKEN}/${CHATS}/-1003?silent=yes&to=7"], VALUES | {"CHATS": "1001,1002"}))
    assert [one.url.removeprefix(f"tgram://{TOKEN}/") for one in found] == [
        "1001/?silent=yes", "1002/?silent=yes", "-1003/?silent=yes", "7/?silent=yes",
    ]  # fmt: skip
    assert [one.target for one in found] == ["chat 1 of 4", "chat 2 of 4", "chat 3 of 4", "chat 4 of 4"]
    assert len({one.key for one in found}) == 4
    assert not any(TOKEN in one.key or TOKEN in one.name for one in found)


def test_a_value_stands_in_an_address_whatever_signs_it_has() -> None:
    assert channel("mailto://${U}:${P}@example.org", U="a@b", P="x/y?&#%").url == (
        "mailto://a%40b:x%2Fy%3F%26%23%25@example.org"
    )


def test_a_whole_address_may_be_one_variable() -> None:
    assert channel("${ALL}", ALL=f"tgram://{TOKEN}/1001").url == f"tgram://{TOKEN}/1001/"
    assert "holds no Apprise URL" in channel("${ALL}", ALL="hello").problem
    assert "names no chat" in channel("${ALL}", ALL=f"tgram://{TOKEN}").problem


def test_a_variable_that_is_not_set_is_a_problem_of_that_channel_alone() -> None:
    first, second = channels_of(["tgram://${NOWHERE}/1", "json://h/x"], {})
    assert first.problem == "${NOWHERE} is set neither in notify_env nor in the environment."
    assert (second.url, second.problem) == ("json://h/x", "")


def test_names_are_found_wherever_they_stand() -> None:
    assert names_in(["tgram://${A}/${B}", "${C}", "json://h"]) == {"A", "B", "C"}


# ----------------------------------------------------------------------------------------------------- the fleet's


def workspace(home: Path, text: str, env: str = "", mode: int = 0o600) -> Workspace:
    (home / "config").mkdir()
    (home / "config/bots.json").write_text(text)
    if env:
        (home / "notify.env").write_text(env)
        (home / "notify.env").chmod(mode)
    return Workspace(Path(os.path.realpath(home)))


FLEET = """{"notify": ["tgram://${TOKEN}/1001"], "notify_env": "notify.env", "bots": [
    {"name": "doge", "notify": ["tgram://${DOGE_TOKEN}/1002", "json://127.0.0.1/doge"]}, {"name": "btc"}]}"""


def test_a_bots_own_people_are_told_of_it_alone_and_the_fleets_of_all_else(tmp_path: Path) -> None:
    home = workspace(tmp_path, FLEET, f"TOKEN={TOKEN}\nDOGE_TOKEN={OTHER}\n")
    found = directory(load_fleet(home))
    assert [one.url for one in found.of(["doge"])] == [f"tgram://{OTHER}/1002/", "json://127.0.0.1/doge"]
    assert [one.url for one in found.of(["btc"])] == [f"tgram://{TOKEN}/1001/"]
    assert found.of(["doge", "btc"]) == found.of(()) == found.of(["btc"])
    assert redact(f"https://api.telegram.org/bot{OTHER}/x") == "https://api.telegram.org/bot[redacted]/x"


def test_without_people_of_the_fleet_those_of_the_bots_are_told_of_what_they_share(tmp_path: Path) -> None:
    text = FLEET.replace('"notify": ["tgram://${TOKEN}/1001"], ', "")
    found = directory(load_fleet(workspace(tmp_path, text, f"DOGE_TOKEN={OTHER}\n")))
    assert [one.url for one in found.of(["doge", "btc"])] == [f"tgram://{OTHER}/1002/", "json://127.0.0.1/doge"]
    assert found.of(["btc"]) == ()


def test_values_come_from_the_environment_where_the_file_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "1:from-the-environment")
    monkeypatch.setenv("DOGE_TOKEN", "2:from-the-environment")
    found = directory(load_fleet(workspace(tmp_path, FLEET, f"TOKEN={TOKEN}\n")))
    assert found.of(["btc"])[0].url == f"tgram://{TOKEN}/1001/"
    assert found.of(["doge"])[0].url == "tgram://2:from-the-environment/1002/"


def test_a_file_of_values_that_others_can_read_is_a_problem_and_not_used(tmp_path: Path) -> None:
    found = directory(load_fleet(workspace(tmp_path, FLEET, f"TOKEN={TOKEN}\n", 0o644)))
    assert "can be read by others (mode 0644)" in found.problem
    assert all(one.problem for one in found.of(["btc"]))


def test_a_mistake_in_notify_is_the_bots_or_the_fleets(tmp_path: Path) -> None:
    home = workspace(tmp_path, '{"bots": [{"name": "doge", "notify": ["me"]}, {"name": "btc"}]}')
    entry = load_fleet(home).get("doge")
    assert entry.problem is not None
    assert entry.problem.startswith('config/bots.json $.bots[0].notify[0]: found "me"; write an Apprise URL')
    assert load_fleet(home).get("btc").bot is not None
    home.bots_file.write_text('{"notify": ["me"], "bots": []}')
    with pytest.raises(ConfigError, match=r"\$\.notify\[0\]: found"):
        load_fleet(home)


# ------------------------------------------------------------------------------------------------------- splitting


def whole(parts: list[str]) -> str:
    """The parts as one again, without their numbers and without blanks."""
    bare = [part.partition(") ")[2] if len(parts) > 1 else part for part in parts]
    return "".join("".join(bare).split())


def test_a_short_text_is_one_part_and_stays_as_it_is() -> None:
    assert split("  a\n\nb  ", 4096) == ["  a\n\nb  "]


@given(st.text(max_size=600), st.integers(100, 200))
def test_parts_fit_and_nothing_is_lost(text: str, limit: int) -> None:
    parts = split(text, limit)
    assert all(units(part) <= limit - len(notify.REPEATED) for part in parts)
    assert whole(parts) == "".join(text.split())


def test_ten_thousand_characters_are_cut_at_ends_of_lines() -> None:
    text = "\n".join(f"line {number}: " + "x" * 60 for number in range(140))
    parts = split(text, 4096)
    assert [part[:6] for part in parts] == ["(1/3) ", "(2/3) ", "(3/3) "]
    assert all(part.endswith("x" * 60) for part in parts)
    assert whole(parts) == "".join(text.split())


@pytest.mark.parametrize(
    "sign", ["\U0001f4a5", "e\u0301", "\U0001f44d\U0001f3fd", "\U0001f1f5\U0001f1f9", "\u0ba8\u0bbf"]
)
def test_what_people_see_as_one_character_is_never_cut(sign: str) -> None:
    """An emoji (two UTF-16 units), an accent, a skin tone, a flag, a vowel sign: wherever the cut may come."""
    for shift in range(6):
        parts = split("x" * shift + sign * 900, 200)
        assert len(parts) > 1
        for part in parts:
            bare = part.partition(") ")[2].removeprefix("x" * shift)
            assert bare == sign * (len(bare) // len(sign))
            assert units(part) <= 200 - len(notify.REPEATED)


# --------------------------------------------------------------------------------------------------------- sending


def test_text_arrives_literally_through_the_real_telegram_plugin(service: Telegram, courier: Courier) -> None:
    text = (
        "doge_long *bold* __x__ <b>fat</b> & &amp; `c` [l](http://x) {{ 7*7 }} ${HOME} \\_ \U0001f4a5\n# head\n\n- item"
    )
    assert courier.send(channel(), Message(text)).sent
    assert service.texts() == [text.replace("\n\n", "\n\u200b\n")]
    assert service.asked == [f"/bot{TOKEN}/sendMessage"]


def test_a_silent_channel_is_silent(service: Telegram, courier: Courier) -> None:
    assert courier.send(channel("tgram://${TOKEN}/${CHAT}?silent=yes"), Message("x")).sent
    assert service.arrived[0].silent


def test_what_a_service_takes_is_asked_of_apprise(courier: Courier) -> None:
    assert courier.measure(channel()) == Measure(4096, True, "Telegram")
    found = courier.measure(channel("nosuch://h/x"))
    assert isinstance(found, Outcome)
    assert (found.rule, found.sent) == ("refused", False)


def test_a_picture_arrives_as_one(service: Telegram, courier: Courier, tmp_path: Path) -> None:
    (tmp_path / "equity.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 64)
    assert courier.send(channel(), Message("", attachments=(str(tmp_path / "equity.png"),))).sent
    assert [one.method for one in service.arrived] == ["sendPhoto"]


@pytest.mark.parametrize(
    ("behaviour", "rule", "says", "doubt"),
    [
        (tg.limited(7), "limited", "HTTP 429: Too Many Requests: retry after 7", False),
        (tg.broken(), "away", "HTTP 500: Internal Server Error", True),
        (tg.broken(502), "away", "HTTP 502: Internal Server Error", True),
        (tg.DROP, "away", "the connection breaks off", True),
        (tg.SILENCE, "away", "it does not answer in time", True),
        (tg.DRIP, "away", "it did not answer to the end within 3 s", True),
        (tg.REDIRECT, "redirect", "it redirects to elsewhere.example, which is not followed", False),
    ],
)
def test_of_a_service_that_behaves_badly_it_is_known_whether_it_may_have_arrived(
    service: Telegram, courier: Courier, behaviour: tg.Behaviour, rule: str, says: str, doubt: bool
) -> None:
    courier.measure(channel())
    service.plan(behaviour)
    began = time.monotonic()
    found = courier.send(channel(), Message("x"), 3.0)
    assert time.monotonic() - began < 6
    assert (found.rule, found.doubt) == (rule, doubt)
    assert says in found.text
    assert TOKEN not in found.text
    assert service.visited == []
    assert courier.send(channel(), Message("after it"), 10.0).sent


def test_how_long_to_wait_is_what_the_service_says(service: Telegram, courier: Courier) -> None:
    service.plan(tg.limited(7))
    assert courier.send(channel(), Message("x")).retry_after == 7


@pytest.mark.parametrize(
    ("values", "says"),
    [({"TOKEN": TOKEN[:-1] + "x"}, "HTTP 401: Unauthorized"), ({"CHAT": "5"}, "HTTP 400: Bad Request: chat not found")],
)
def test_a_wrong_token_and_a_wrong_chat_are_refused_for_a_person_to_mend(
    service: Telegram, courier: Courier, values: dict[str, str], says: str
) -> None:
    found = courier.send(channel(**values), Message("x"))
    assert (found.rule, found.text, found.doubt) == ("refused", says, False)


def test_a_service_that_is_not_there_has_certainly_not_got_it(courier: Courier) -> None:
    found = courier.send(channel("json://127.0.0.1:1/x"), Message("x"))
    assert (found.rule, found.text, found.doubt) == ("away", "the connection is refused", False)


def test_a_certificate_that_is_not_trusted_gets_no_token(service: Telegram, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with Courier() as courier:
        found = courier.send(channel(), Message("x"))
    assert (found.rule, found.text, found.doubt) == ("away", "its certificate is not trusted", False)
    assert service.asked == []


def test_another_service_gets_the_text_as_it_is_and_its_status_codes_are_understood(courier: Courier) -> None:
    with webhook() as hook:
        there = channel(hook.url)
        assert courier.send(there, Message("a_b <c> & *d*", "botkeep: doge", "critical")).sent
        assert {key: hook.came[0][key] for key in ("title", "message", "type")} == {
            "title": "botkeep: doge", "message": "a_b <c> & *d*", "type": "failure",
        }  # fmt: skip
        hook.status, hook.headers = 429, {"Retry-After": "30"}
        assert courier.send(there, Message("x")).retry_after == 30
        hook.status, hook.headers = 404, {}
        assert courier.send(there, Message("x")).rule == "refused"
        hook.status, hook.headers = 307, {"Location": f"http://127.0.0.1:{hook.port}/elsewhere"}
        before = len(hook.came)
        assert courier.send(there, Message("x")).rule == "redirect"
        assert len(hook.came) == before + 1


def test_an_answer_without_an_end_costs_neither_memory_nor_time(courier: Courier) -> None:
    from support.loopback import servers

    def flood(connection: object) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")  # type: ignore[attr-defined]
        while True:
            connection.sendall(b"x" * 65536)  # type: ignore[attr-defined]

    with servers() as serve:
        server = serve(flood)
        began = time.monotonic()
        assert courier.send(channel(f"json://127.0.0.1:{server.port}/x"), Message("x"), 5.0).sent
        assert time.monotonic() - began < 5


def test_an_address_that_asks_to_follow_redirects_is_not_obeyed(service: Telegram, courier: Courier) -> None:
    service.plan(tg.REDIRECT)
    found = courier.send(channel("tgram://${TOKEN}/${CHAT}?redirect=yes"), Message("x"))
    assert (found.rule, service.visited) == ("redirect", [])


def test_the_process_ends_with_the_block_and_its_address_is_in_no_command_line(service: Telegram) -> None:
    with Courier() as courier:
        courier.send(channel(), Message("x"))
        process = courier._process
        assert process is not None
        assert TOKEN.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert TOKEN.encode() not in Path(f"/proc/{process.pid}/environ").read_bytes()
    wait_for(lambda: not alive(process.pid))
