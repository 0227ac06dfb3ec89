"""config/bots.json: what loads, what is refused and how it is said."""

import json
import os
import time
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from botkeep import untrusted
from botkeep.config import (
    Bot,
    Fleet,
    Workspace,
    bots_schema,
    load_env_file,
    load_fleet,
    may_hold_secret,
)
from botkeep.fields import parse_duration
from botkeep.limits import canonical, text_of
from botkeep.model import BotkeepError, ConfigError, UsageError
from botkeep.workspace import find_workspace, is_local, mount_type

FIRST_USERS = """{"bots": [
  {"name": "doge-long", "type": "spot", "check_interval": 300, "process_name": "doge_long_bot",
   "data_file": "data/doge_trades.csv", "health_endpoint": "http://localhost:8080/health"},
  {"name": "btc-optimized", "type": "futures", "check_interval": 60, "process_name": "btc_v1_bot",
   "data_file": "data/btc_trades.csv"}]}
"""
SECRETS = {
    "Telegram": "123456789:AAabcdefghijklmnopqrstuvwxyz0123456",
    "AWS": "AKIAIOSFODNN7EXAMPLE",
    "JWT": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    "PEM": "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----",
    "URL": "http://me:hunter2@localhost:8080/health",
    "vendor": "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "hex": "0x" + "4f3edf983ac636a65a842ce7c78d9aa706d3b113bce9c46f30d7d21715b23b1d",
    "seed": "legal winner thank year wave sausage worth useful legal winner thank yellow",
    "webhook": "https://discord.com/api/webhooks/1/x",
}

POLLING: dict[str, Any] = {
    "polling": {
        "file": "user_data/polling.json",
        "normal": {},
        "reduced": {"internals": {"process_throttle_secs": 30}},
        "apply": "watched",
    }
}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "config").mkdir()
    return Workspace(Path(os.path.realpath(tmp_path)))


def load(workspace: Workspace, value: object) -> Fleet:
    text = value if isinstance(value, str) else json.dumps(value)
    workspace.bots_file.write_text(text, encoding="utf-8", errors="surrogatepass")
    return load_fleet(workspace)


def problem(workspace: Workspace, extra: dict[str, Any]) -> str:
    """The problem of a bot with these keys beside a good one, which must go on."""
    fleet = load(workspace, {"bots": [{"name": "good"}, {"name": "bad", **extra}]})
    assert fleet.get("good").bot is not None
    entry = fleet.get("bad")
    assert entry.bot is None
    assert entry.problem is not None
    assert "\n" not in entry.problem
    return entry.problem


def refusal(workspace: Workspace, value: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load(workspace, value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_first_users_file_loads_as_it_is(workspace: Workspace) -> None:
    fleet = load(workspace, FIRST_USERS)
    doge, btc = fleet.bots
    assert (doge.name, doge.type, doge.check_interval, doge.process_name) == ("doge-long", "spot", 300, "doge_long_bot")
    assert doge.data_file == workspace.home / "data/doge_trades.csv"
    assert doge.health_endpoint == "http://localhost:8080/health"
    assert btc.health_endpoint is None
    assert btc.runtime is None
    assert [entry.problem for entry in fleet.entries] == [None, None]


def test_every_key_loads_and_paths_become_absolute(workspace: Workspace) -> None:
    fleet = load(
        workspace,
        {
            "$schema": "./bots.schema.json",
            "timezone": "Europe/Lisbon",
            "notify": ["tgram://${TOKEN}/${CHAT}"],
            "notify_env": "notify.env",
            "heartbeat_url": "https://hc.example.org/ping/${PING}",
            "wake": ["claude", "-p"],
            "wakes_per_hour": 2,
            "commit": True,
            "allowed_hosts": ["bots.lan"],
            "bots": [
                {
                    "name": "full",
                    "data_file": "data/./full.csv",
                    "log_file": "full.log",
                    "runtime": {"kind": "process", "command": ["python", "full.py"], "env_file": ".env"},
                    "profile": "plain",
                    "data_format": {"kind": "csv", "delimiter": ";", "header": False, "columns": {"pnl": "profit"}},
                    "capital": "1000.10",
                    "currency": "USDT",
                    "progress": {"file": "beat", "every": "10m"},
                    "limits": POLLING,
                    "restart_every": "1h",
                    "pause": "20s",
                    "max_trades_per_hour": 3,
                    "timezone": "Asia/Tokyo",
                }
            ],
        },
    )
    (bot,) = fleet.bots
    assert (fleet.wake, fleet.wakes_per_hour, fleet.commit) == (("claude", "-p"), 2, True)
    assert fleet.heartbeat_url == "https://hc.example.org/ping/${PING}"
    assert bot.data_file == workspace.home / "data/full.csv"
    assert bot.log_file == workspace.home / "full.log"
    assert bot.runtime.command == ["python", "full.py"]
    assert bot.capital == Decimal("1000.10")
    assert bot.progress is not None
    assert (bot.progress.file, bot.progress.every) == (workspace.home / "beat", timedelta(minutes=10))
    assert (bot.restart_every, bot.pause) == (timedelta(hours=1), timedelta(seconds=20))
    assert bot.format_options().delimiter == ";"
    assert bot.format_options().quote == "USDT"


def test_a_bot_without_data_format_reads_its_file_in_its_own_zone() -> None:
    options = Bot(name="a", timezone="Asia/Tokyo", currency="EUR").format_options()
    assert (options.timezone, options.quote, options.mode) == ("Asia/Tokyo", "EUR", "append")


def test_capital_is_exact_however_it_is_written(workspace: Workspace) -> None:
    fleet = load(workspace, '{"bots": [{"name": "a", "capital": 0.1}, {"name": "b", "capital": "12345678901234.55"}]}')
    assert [bot.capital for bot in fleet.bots] == [Decimal("0.1"), Decimal("12345678901234.55")]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "config/bots.json: the file is empty"),
        (" \n ", "config/bots.json: the file is empty"),
        ('{"bots": [}', "not JSON at line 1, column 11"),
        ('{"bots": [\n {"name": "a",}]}', "not JSON at line 2, column 15"),
        ('{"bots": [{"name": "a", "capital": NaN}]}', "NaN is not a JSON number"),
        ("[" * 200_000, "nested too deep"),
        ("9" * 5000, "not JSON"),
        ("[]", '$: found []; write an object: {"bots": [...]}'),
        ('{"bot": []}', "$.bot: there is no such key; did you mean bots?"),
        ("{}", "$.bots: it is missing"),
        ('{"bots": {}}', "$.bots: found {}; write a list"),
        ('{"bots": ["a"]}', '$.bots[0]: found "a"; write an object'),
        ('{"bots": [], "bots": []}', 'the key "bots" stands twice'),
        ('{"bots": [], "time_zone": "UTC"}', "$.time_zone: there is no such key; did you mean timezone?"),
        ('{"bots": [], "timezone": "Mars/Base"}', '$.timezone: found "Mars/Base"; write a time zone'),
        ('{"bots": [], "allowed_paths": ["data"]}', "$.allowed_paths[0]"),
        ('{"bots": [], "allowed_paths": ["/"]}', "$.allowed_paths[0]"),
        ('{"bots": [], "notify": ["tgram://123456789:AAabcdefghijklmnopqrstuvwxyz0123456/1"]}', "holds a Telegram"),
        ('{"bots": [{"type": "spot"}]}', "$.bots[0].name: it is missing"),
    ],
)
def test_a_file_that_leaves_no_fleet_is_one_line(workspace: Workspace, content: str, says: str) -> None:
    assert says in refusal(workspace, content)


@pytest.mark.parametrize("name", ["a/b", "-a", "a\n", "", "A", "a b", "../a", "a\u2011b", "x" * 64, 7, None, "a.b"])
def test_a_name_that_breaks_the_grammar_leaves_no_fleet(workspace: Workspace, name: object) -> None:
    assert "$.bots[0].name: found " in refusal(workspace, {"bots": [{"name": name}]})


def test_a_name_twice_leaves_no_fleet_and_both_places_are_named(workspace: Workspace) -> None:
    said = refusal(workspace, {"bots": [{"name": "a"}, {"name": "b"}, {"name": "a"}]})
    assert said == 'config/bots.json $.bots[2].name: "a" is the name of $.bots[0] already; choose another'


def test_a_missing_file_is_said_with_what_to_do(workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match=r"no such file in .*botkeep init"):
        load_fleet(workspace)


def test_bytes_that_are_no_utf8_are_refused(workspace: Workspace) -> None:
    workspace.bots_file.write_bytes(b'{"bots": ["\xff\xfe\xfa"]}')
    with pytest.raises(ConfigError, match="not JSON"):
        load_fleet(workspace)


def test_a_byte_order_mark_does_no_harm(workspace: Workspace) -> None:
    workspace.bots_file.write_bytes(b"\xef\xbb\xbf" + FIRST_USERS.encode())
    assert len(load_fleet(workspace).bots) == 2


def test_what_is_not_a_regular_file_is_refused_at_once(workspace: Workspace) -> None:
    workspace.bots_file.mkdir()
    with pytest.raises(ConfigError, match=r"config/bots.json cannot be read"):
        load_fleet(workspace)
    workspace.bots_file.rmdir()
    os.mkfifo(workspace.bots_file)
    with pytest.raises(ConfigError, match="not a regular file"):
        load_fleet(workspace)
    workspace.bots_file.unlink()
    workspace.bots_file.symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match="not a regular file"):
        load_fleet(workspace)


def test_a_file_of_ten_gigabytes_is_refused_without_reading_it(workspace: Workspace) -> None:
    with workspace.bots_file.open("wb") as file:
        file.truncate(10 << 30)
    with pytest.raises(ConfigError, match="more than"):
        load_fleet(workspace)


def test_a_file_that_everybody_may_write_is_refused(workspace: Workspace) -> None:
    workspace.bots_file.write_text(FIRST_USERS)
    workspace.bots_file.chmod(0o666)
    with pytest.raises(ConfigError, match="chmod o-w"):
        load_fleet(workspace)


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"proces_name": "x"}, "$.bots[1].proces_name: there is no such key; did you mean process_name?"),
        ({"zzz": 1}, "$.bots[1].zzz: there is no such key; write one of: name, type,"),
        ({"check_interval": "300"}, '$.bots[1].check_interval: found "300"; write a whole number'),
        ({"check_interval": True}, "$.bots[1].check_interval: found true; write a whole number"),
        ({"check_interval": -5}, "$.bots[1].check_interval: found -5; write 5 or more"),
        ({"check_interval": 1.5}, "$.bots[1].check_interval: found 1.5; write a whole number"),
        ({"capital": -1}, "$.bots[1].capital: found -1; write more than 0"),
        ({"capital": "NaN"}, "$.bots[1].capital"),
        ({"capital": "1_000"}, "$.bots[1].capital"),
        ({"max_trades_per_hour": -1}, "$.bots[1].max_trades_per_hour: found -1; write 1 or more"),
        ({"restart_every": "-1h"}, '$.bots[1].restart_every: found "-1h"; write a length of time'),
        ({"restart_every": 3600}, "$.bots[1].restart_every: found 3600; write a length of time"),
        ({"progress": {"file": "x"}}, "$.bots[1].progress.every: it is missing"),
        (
            {"progress": {"file": "x", "every": "1m", "evry": 1}},
            "progress.evry: there is no such key; did you mean every?",
        ),
        ({"process_name": "a/b"}, "$.bots[1].process_name"),
        ({"process_name": "-x"}, "$.bots[1].process_name"),
        ({"process_name": "a\nb"}, "$.bots[1].process_name"),
        ({"runtime": "process"}, '$.bots[1].runtime: found "process"; write an object with "kind", one of: process'),
        ({"runtime": {"kind": "proces"}}, '$.bots[1].runtime.kind: found "proces"; did you mean process?'),
        ({"runtime": {"kind": ["process"]}}, '$.bots[1].runtime.kind: found ["process"]; write one of: process'),
        ({"runtime": {"kind": "process"}}, "$.bots[1].runtime.command: it is missing"),
        ({"runtime": {"kind": "process", "command": []}}, "$.bots[1].runtime.command: found []; write at least one"),
        ({"runtime": {"kind": "process", "command": "a.py"}}, '$.bots[1].runtime.command: found "a.py"; write a list'),
        (
            {"runtime": {"kind": "process", "command": ["a"], "comand": 1}},
            "runtime.comand: there is no such key; did you",
        ),
        ({"runtime": {"kind": "process", "command": ["a"], "stop_grace": -1}}, "runtime.stop_grace: found -1"),
        ({"runtime": {"kind": "process", "command": ["a"], "cwd": "/srv"}}, 'runtime.cwd: found "/srv", outside'),
        ({"runtime": {"kind": "process", "command": ["a"], "env_file": "../.env"}}, "$.bots[1].runtime.env_file"),
        ({"profile": "plian"}, '$.bots[1].profile: found "plian"; did you mean plain?'),
        ({"data_format": {"kind": "cvs"}}, '$.bots[1].data_format.kind: found "cvs"; did you mean csv?'),
        ({"data_format": {"kind": "csv", "delimiter": "::"}}, "$.bots[1].data_format.delimiter"),
        ({"timezone": "Nowhere"}, '$.bots[1].timezone: found "Nowhere"; write a time zone'),
        ({"health_endpoint": "file:///etc/passwd"}, "$.bots[1].health_endpoint"),
        ({"health_endpoint": "ftp://localhost/"}, "only http and https"),
        ({"health_endpoint": "http://"}, "$.bots[1].health_endpoint"),
        ({"health_endpoint": "http://[::1"}, "$.bots[1].health_endpoint"),
        ({"health_endpoint": "http://localhost:99999/"}, "$.bots[1].health_endpoint"),
        ({"health_endpoint": "http://localhost/\r\nHost: x"}, "$.bots[1].health_endpoint"),
        ({"data_file": "/etc/passwd"}, '$.bots[1].data_file: found "/etc/passwd", outside the workspace'),
        ({"data_file": "../other/trades.csv"}, "outside the workspace"),
        ({"data_file": "data/../../x.csv"}, "outside the workspace"),
        ({"data_file": "/proc/self/environ"}, "outside the workspace"),
        ({"data_file": ".botkeep/ledger.db"}, ".botkeep is botkeep's own"),
        ({"data_file": "a\0b"}, "$.bots[1].data_file: a text with a character"),
        ({"type": "\ud800"}, "$.bots[1].type: a text with a character"),
        ({"type": "x" * 9000}, "$.bots[1].type: a text of 9000 characters"),
        ({"type": 3, "currency": 4}, "(1 more after this one)"),
    ],
)
def test_a_mistake_in_one_entry_is_that_bots_alone(workspace: Workspace, extra: dict[str, Any], says: str) -> None:
    said = problem(workspace, extra)
    assert said.startswith("config/bots.json $.bots[1]")
    assert says in said


def test_a_number_of_absurd_size_is_refused_at_once(workspace: Workspace) -> None:
    started = time.process_time()
    fleet = load(
        workspace, '{"bots": [{"name": "a", "check_interval": 1e1000000}, {"name": "b", "capital": 1e-99999}]}'
    )
    assert time.process_time() - started < 1
    assert [entry.bot for entry in fleet.entries] == [None, None]


def test_a_key_twice_in_an_entry_is_that_bots_problem(workspace: Workspace) -> None:
    fleet = load(workspace, '{"bots": [{"name": "a"}, {"name": "b", "data_file": "x", "data_file": "y"}]}')
    assert fleet.get("a").bot is not None
    assert fleet.get("b").problem == 'config/bots.json $.bots[1]: the key "data_file" stands twice; keep one'


def test_two_bots_with_one_data_file_each_name_the_other(workspace: Workspace) -> None:
    (workspace.home / "data").mkdir()
    (workspace.home / "link").symlink_to("data")
    fleet = load(
        workspace,
        {
            "bots": [
                {"name": "a", "data_file": "data/t.csv"},
                {"name": "b", "data_file": "link/../data/t.csv"},
                {"name": "c", "data_file": "link/t.csv"},
                {"name": "d", "data_file": "data/other.csv"},
            ]
        },
    )
    assert [entry.bot is not None for entry in fleet.entries] == [False, False, False, True]
    assert fleet.entries[0].problem == (
        "config/bots.json $.bots[0].data_file: it is the data file of b, c too; give each bot its own"
    )


def test_two_bots_that_would_run_the_same_command_cannot_be_told_apart(workspace: Workspace) -> None:
    run = {"kind": "process", "command": ["python", "bot.py"]}
    fleet = load(
        workspace,
        {
            "bots": [
                {"name": "a", "runtime": run},
                {"name": "b", "runtime": {**run, "stop_grace": 5}},
                {"name": "c", "runtime": {**run, "cwd": "c"}},
                {"name": "d", "runtime": {**run, "command": ["python", "bot.py", "d"]}},
            ]
        },
    )
    assert [entry.bot is not None for entry in fleet.entries] == [False, False, True, True]
    assert "same as b" in str(fleet.entries[0].problem)


def test_a_symlink_that_leads_outside_is_refused_and_one_inside_is_followed(
    workspace: Workspace, tmp_path: Path
) -> None:
    (workspace.home / "data").mkdir()
    (workspace.home / "out.csv").symlink_to("/etc/passwd")
    (workspace.home / "outdir").symlink_to("/etc")
    (workspace.home / "loop").symlink_to("loop")
    (workspace.home / "in.csv").symlink_to("data/real.csv")
    fleet = load(
        workspace,
        {"bots": [{"name": n, "data_file": f} for n, f in [("a", "out.csv"), ("b", "outdir/x.csv"), ("c", "in.csv")]]},
    )
    assert "leads to /etc/passwd, outside the workspace" in str(fleet.get("a").problem)
    assert "leads to /etc/x.csv, outside the workspace" in str(fleet.get("b").problem)
    assert fleet.bots[0].data_file == workspace.home / "data/real.csv"


def test_a_folder_outside_is_usable_once_it_is_allowed(
    workspace: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    bot = {"name": "a", "data_file": str(other / "t.csv")}
    assert load(workspace, {"bots": [bot]}).bots == ()
    fleet = load(workspace, {"allowed_paths": [str(other)], "bots": [bot, {"name": "b", "data_file": f"{other}x/t"}]})
    assert [str(found.data_file) for found in fleet.bots] == [str(other / "t.csv")]


def test_paths_are_absolute_also_when_the_workspace_is_reached_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "real/config").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real/config/bots.json").write_text(FIRST_USERS)
    workspace = find_workspace("link", {}, tmp_path)
    assert load_fleet(workspace).bots[0].data_file == Path(os.path.realpath(tmp_path / "real/data/doge_trades.csv"))


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize("place", ["type", "limits", "command", "argument", "env"])
def test_a_literal_secret_anywhere_is_refused_and_never_repeated(workspace: Workspace, kind: str, place: str) -> None:
    secret = SECRETS[kind]
    extra: dict[str, Any] = {
        "type": {"type": secret},
        "limits": {"limits": {"deep": [{"er": secret}]}},
        "command": {"runtime": {"kind": "process", "command": ["python", secret]}},
        "argument": {"runtime": {"kind": "process", "command": ["python", f"--key={secret}"]}},
        "env": {"runtime": {"kind": "process", "command": ["python"], "env": {"X": secret}}},
    }[place]
    said = problem(workspace, extra)
    assert "secrets are never written here" in said
    assert "env_file" in said
    assert secret[:20] not in said


@pytest.mark.parametrize(
    "extra",
    [
        {"api_key": "abcdef"},
        {"limits": {"binanceApiSecret": "abc"}},
        {"replay": {"password": "hunter2"}},
        {"runtime": {"kind": "process", "command": ["x"], "env": {"API_KEY": "abc"}}},
        {"runtime": {"kind": "process", "command": ["x", "--api-key", "hunter2"]}},
        {"runtime": {"kind": "process", "command": ["x", "--secret=hunter2"]}},
    ],
)
def test_a_secret_known_by_its_name_only_is_refused(workspace: Workspace, extra: dict[str, Any]) -> None:
    assert "secrets are never written here" in problem(workspace, extra)


def test_names_of_variables_and_files_are_no_secrets(workspace: Workspace) -> None:
    fleet = load(
        workspace,
        {
            "bots": [
                {
                    "name": "a",
                    "runtime": {
                        "kind": "process",
                        "command": ["python", "bot.py", "--key-file", "keys.json", "--quote", "USDT"],
                        "env_file": ".env",
                        "env": {"API_KEY_FILE": "keys.json", "LOG_LEVEL": "INFO"},
                    },
                }
            ]
        },
    )
    assert fleet.entries[0].problem is None


@pytest.mark.parametrize("secret", SECRETS.values())
def test_the_fast_look_for_secrets_misses_none_that_the_slow_one_finds(secret: str) -> None:
    for text in (secret, f"x={secret}", f"api_key={secret}", f"a\nb={secret}\nc"):
        assert may_hold_secret(text) or untrusted.looks_like_secret(text) is None


@pytest.mark.parametrize(("kind", "pattern"), [(kind, pattern) for kind, pattern, _ in untrusted._PATTERNS])
def test_the_fast_look_for_secrets_misses_nothing_that_any_pattern_can_match(kind: str, pattern: str) -> None:
    @settings(max_examples=40, deadline=None)
    @given(st.from_regex(pattern), st.sampled_from(["", "x", "\n", "key="]))
    def check(text: str, before: str) -> None:
        text = untrusted.strip(before + text)
        assert may_hold_secret(text) or untrusted.looks_like_secret(text) is None

    check()


def test_an_unknown_bot_is_answered_with_the_closest_names(workspace: Workspace) -> None:
    fleet = load(workspace, FIRST_USERS)
    with pytest.raises(UsageError, match=r'There is no bot "dogelong"\. The bots are: doge-long, btc-optimized'):
        fleet.get("dogelong")
    with pytest.raises(UsageError, match="lists none yet"):
        load(workspace, {"bots": []}).get("x")
    many = load(workspace, {"bots": [{"name": f"b{i}"} for i in range(50)]})
    with pytest.raises(UsageError, match="and 30 more"):
        many.get("\x1b[2J" + "x" * 500)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(list(Bot.model_fields)) | st.text(max_size=8)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.dictionaries(KEYS, JSON, max_size=4))
def test_whatever_an_entry_holds_the_other_bot_goes_on(workspace: Workspace, extra: dict[str, Any]) -> None:
    fleet = load(workspace, {"bots": [{"name": "good", "data_file": "good.csv"}, {**extra, "name": "odd"}]})
    assert fleet.get("good").bot is not None
    odd = fleet.get("odd")
    assert (odd.bot is None) == (odd.problem is not None)
    if odd.problem is not None:
        assert odd.problem.startswith("config/bots.json $.bots[1]")
        assert "\n" not in odd.problem


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(JSON | st.fixed_dictionaries({"bots": JSON}) | st.fixed_dictionaries({"bots": st.lists(JSON, max_size=3)}))
def test_whatever_the_file_holds_it_loads_or_is_one_line(workspace: Workspace, value: object) -> None:
    said = ""
    try:
        load(workspace, value)
    except ConfigError as error:
        said = str(error)
    assert not said or said.startswith("config/bots.json")
    assert "\n" not in said


def test_a_thousand_bots_load_in_a_fraction_of_a_second(workspace: Workspace) -> None:
    bots = [
        {
            "name": f"bot-{i}",
            "type": "spot",
            "process_name": f"bot_{i}",
            "data_file": f"data/{i}/trades.csv",
            "health_endpoint": f"http://localhost:{8000 + i}/health",
            "runtime": {"kind": "process", "command": ["python", "bot.py", str(i)], "env_file": f"env/{i}"},
        }
        for i in range(1000)
    ]
    workspace.bots_file.write_text(json.dumps({"bots": bots}))
    load_fleet(workspace)
    started = time.process_time()
    fleet = load_fleet(workspace)
    took = time.process_time() - started
    assert len(fleet.bots) == 1000
    assert took < 0.6, f"{took:.3f} s of processor time"


# --- the JSON Schema -----------------------------------------------------------------------------------------------


def test_the_json_schema_accepts_what_loads_and_names_the_kinds(workspace: Workspace) -> None:
    schema = bots_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(FIRST_USERS), schema)
    full = {
        "name": "a",
        "runtime": {"kind": "process", "command": ["x"]},
        "profile": "plain",
        "capital": "10",
        "data_format": {"kind": "csv"},
        "restart_every": "1h",
    }
    jsonschema.validate({"$schema": "./bots.schema.json", "bots": [full], "timezone": "UTC"}, schema)
    assert load(workspace, {"bots": [full]}).bots


@pytest.mark.parametrize(
    "extra",
    [
        {"proces_name": "x"},
        {"name": "A/b"},
        {"runtime": {"kind": "proces", "command": ["x"]}},
        {"runtime": {"kind": "process"}},
        {"profile": "plian"},
        {"data_format": {"kind": "cvs"}},
        {"restart_every": "-1h"},
        {"check_interval": 1},
    ],
)
def test_the_json_schema_refuses_what_does_not_load(extra: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"bots": [{"name": "a", **extra}]}, bots_schema())


# --- limits --------------------------------------------------------------------------------------------------------


def polling(**other: Any) -> dict[str, Any]:
    """A bot's `limits` with these keys of `polling`."""
    return {"limits": {"polling": POLLING["polling"] | other}}


def test_what_may_be_lowered_is_one_file_with_two_documents(workspace: Workspace) -> None:
    bot = load(workspace, {"bots": [{"name": "a", "limits": POLLING}, {"name": "b"}]}).bots[0]
    limit = bot.limits.polling
    assert limit is not None
    assert limit.file == workspace.home / "user_data/polling.json"
    assert (limit.normal, limit.apply) == ({}, "watched")
    assert limit.reduced == {"internals": {"process_throttle_secs": 30}}
    assert Bot(name="b").limits.polling is None
    jsonschema.validate({"bots": [{"name": "a", "limits": POLLING}]}, bots_schema())


def test_a_document_is_kept_to_the_last_digit(workspace: Workspace) -> None:
    text = json.dumps({"bots": [{"name": "a", "limits": POLLING}]})
    exact = '{"rate": 0.10000000000000000055, "big": 12345678901234567890123, "off": null, "text": "ü"}'
    limit = load(workspace, text.replace('{"internals": {"process_throttle_secs": 30}}', exact)).bots[0].limits.polling
    assert limit is not None
    assert json.loads(text_of(limit.reduced), parse_float=str) == json.loads(exact, parse_float=str)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (
            {"limits": {"poll_seconds": 30}},
            "$.bots[1].limits.poll_seconds: there is no such key; write one of: ",
        ),
        ({"limits": {"poling": {}}}, "$.bots[1].limits.poling: there is no such key; did you mean polling?"),
        ({"limits": {"polling": {}}}, "$.bots[1].limits.polling.file: it is missing; write it (3 more after this one)"),
        (polling(aply="reload"), "$.bots[1].limits.polling.aply: there is no such key; did you mean apply?"),
        (polling(apply="at once"), "apply: found \"at once\"; write 'reload', 'restart' or 'watched'"),
        (polling(normal=[1]), "limits.polling.normal: found [1]; write an object: {...}"),
        (polling(reduced=None), "limits.polling.reduced: found null; write an object: {...}"),
        (polling(reduced={}), "write a `reduced` that is not the same as `normal`"),
        (polling(file="../elsewhere.json"), "outside the workspace"),
        (polling(file=".botkeep/polling.json"), ".botkeep is botkeep's own, choose another"),
        (polling(reduced={f"x{n}": "y " * 3500 for n in range(10)}), "write a document of at most 65536 characters"),
        (polling(reduced={"key": "ghp_abcdefghijklmnopqrstuvwxyz0123456789"}), "secrets are never written here"),
        (polling(apply="reload"), 'apply: found "reload"; write the "api" with its "url" that is told to reload'),
        ({**polling(apply="reload"), "api": {"hbot": ["hbot"]}}, 'write the "api" with its "url"'),
    ],
)
def test_a_limit_that_could_not_be_kept_is_refused(workspace: Workspace, extra: dict[str, Any], said: str) -> None:
    assert said in problem(workspace, extra)


@pytest.mark.parametrize(
    "extra",
    [
        {"limits": {"poll_seconds": 30}},
        {"limits": {"polling": {}}},
        polling(apply="at once"),
        polling(normal=[1]),
        polling(reduced=None),
        polling(file=7),
    ],
)
def test_the_json_schema_refuses_such_a_limit_too(extra: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"bots": [{"name": "a", **extra}]}, bots_schema())


@pytest.mark.parametrize("number", ["1e31", "1" + "0" * 60 + ".5", "-1e-300000"])
def test_a_number_that_could_not_be_given_back_as_written_is_refused(workspace: Workspace, number: str) -> None:
    entry = {"name": "a", "limits": POLLING}
    text = json.dumps({"bots": [entry]}).replace(": 30}", f": {number}}}")
    said = load(workspace, text).entries[0].problem
    assert said is not None
    assert "limits.polling.reduced: found" in said
    assert "write numbers of at most 40 digits" in said


def test_a_reload_needs_an_api_that_is_told(workspace: Workspace) -> None:
    api = {"url": "http://127.0.0.1:8080"}
    assert load(workspace, {"bots": [{"name": "a", "api": api, **polling(apply="reload")}]}).bots


def test_two_bots_never_share_a_polling_file(workspace: Workspace) -> None:
    (workspace.home / "user_data").mkdir()
    (workspace.home / "link").symlink_to("user_data")
    bots = [{"name": "a", **polling()}, {"name": "b", **polling(file="link/polling.json")}, {"name": "c"}]
    entries = load(workspace, {"bots": bots}).entries
    assert [entry.problem for entry in entries] == [
        f"config/bots.json $.bots[{index}].limits: its polling file is that of {other} too; give each bot its own"
        for index, other in ((0, "b"), (1, "a"))
    ] + [None]


@given(JSON, JSON)
def test_two_documents_are_the_same_only_if_they_say_the_same(one: object, other: object) -> None:
    assert (canonical(one) == canonical(other)) is (_exact(one) == _exact(other))


def _exact(value: object) -> object:
    """As Python compares, but for true, which it takes for 1."""
    if isinstance(value, dict):
        return {key: _exact(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_exact(inner) for inner in value]
    return (type(value) is bool, value)


def test_how_a_number_is_written_does_not_matter() -> None:
    for same in (("5", "5.0", "5e0", "50e-1"), ("0", "0.0", "-0.0"), ("1e40", "1" + "0" * 40), ("0.1", "0.10")):
        assert len({canonical(json.loads(text, parse_float=Decimal)) for text in same}) == 1, same
    different = ("1", "1.0000000000000000000000000000000000001", "10", "0.1", "-1", "true", '"1"', "null", "[1]")
    assert len({canonical(json.loads(text, parse_float=Decimal)) for text in different}) == len(different)


# --- lengths of time -----------------------------------------------------------------------------------------------


@given(st.integers(0, 366 * 86400), st.sampled_from("smhd"))
def test_a_length_of_time_is_a_number_and_a_unit(number: int, unit: str) -> None:
    seconds = number * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit]
    if seconds <= 366 * 86400:
        assert parse_duration(f"{number}{unit}") == timedelta(seconds=seconds)
    else:
        with pytest.raises(ValueError, match="at most 366d"):
            parse_duration(f"{number}{unit}")


@pytest.mark.parametrize("text", ["", "5", 5, "-5s", "5 s", "1h30m", "٣s", "5S", "1e3s", None, True, "999999999d"])
def test_anything_else_is_no_length_of_time(text: object) -> None:
    with pytest.raises(ValueError, match="length of time"):
        parse_duration(text)


# --- the workspace -------------------------------------------------------------------------------------------------


def test_a_workspace_is_named_or_found_above(tmp_path: Path) -> None:
    home, below = tmp_path / "ws", tmp_path / "ws/a/b"
    below.mkdir(parents=True)
    (home / "config").mkdir()
    (home / "config/bots.json").write_text("{}")
    real = Path(os.path.realpath(home))
    assert find_workspace(None, {}, below).home == real
    assert find_workspace(None, {"BOTKEEP_HOME": str(home)}, tmp_path).home == real
    assert find_workspace("ws", {"BOTKEEP_HOME": "/nowhere"}, tmp_path).home == real
    assert find_workspace("", {"BOTKEEP_HOME": ""}, below).home == real


def test_no_workspace_is_a_usage_error_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="botkeep init DIR"):
        find_workspace(None, {}, tmp_path)
    with pytest.raises(UsageError, match=r"--home names nowhere, and there is no such folder"):
        find_workspace("nowhere", {}, tmp_path)
    with pytest.raises(UsageError, match=r"\$BOTKEEP_HOME names"):
        find_workspace(None, {"BOTKEEP_HOME": "nowhere"}, tmp_path)


def test_prepare_makes_a_folder_of_our_own_again_and_again(workspace: Workspace) -> None:
    for _ in range(2):
        workspace.prepare()
    assert sorted(path.name for path in workspace.state_dir.iterdir()) == [
        "backups", "logs", "playbooks", "quarantine", "run",
    ]  # fmt: skip
    for folder in (workspace.state_dir, *workspace.state_dir.iterdir()):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_prepare_closes_a_folder_that_others_could_only_read(workspace: Workspace) -> None:
    workspace.state_dir.mkdir(mode=0o755)
    workspace.state_dir.chmod(0o755)
    workspace.prepare()
    assert workspace.state_dir.stat().st_mode & 0o777 == 0o700


def test_prepare_refuses_a_folder_that_others_can_write(workspace: Workspace) -> None:
    workspace.state_dir.mkdir()
    workspace.state_dir.chmod(0o770)
    with pytest.raises(BotkeepError, match=r"Others can write .*chmod 700"):
        workspace.prepare()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_prepare_refuses_a_folder_of_somebody_else(workspace: Workspace) -> None:
    workspace.state_dir.mkdir(mode=0o700)
    os.chown(workspace.state_dir, 65534, 65534)
    with pytest.raises(BotkeepError, match="belongs to user 65534"):
        workspace.prepare()


def test_prepare_refuses_what_is_no_folder(workspace: Workspace) -> None:
    workspace.state_dir.write_text("")
    with pytest.raises(BotkeepError, match="cannot make its folder"):
        workspace.prepare()


def test_prepare_follows_a_link_of_ours_to_another_disk(
    workspace: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("disk")
    workspace.state_dir.symlink_to(other)
    workspace.prepare()
    assert (other / "run").is_dir()


MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:30 / /mnt rw - nfs4 server:/x rw
31 30 8:2 / /mnt/my\\040disk rw - ext4 /dev/sdb1 rw
32 22 0:40 / /home rw - ext4 /dev/sdc rw
33 32 0:41 / /home rw - cifs //nas/home rw
34 22 0:42 / /sshfs rw - fuse.sshfs me@host:/ rw
nonsense
"""


@pytest.mark.parametrize(
    ("path", "kind", "local"),
    [
        ("/srv/ws", "ext4", True),
        ("/mnt/ws", "nfs4", False),
        ("/mnt/my disk/ws", "ext4", True),
        ("/mntx", "ext4", True),
        ("/home/me", "cifs", False),
        ("/sshfs", "fuse.sshfs", False),
    ],
)
def test_the_mount_that_holds_a_path_says_whether_it_is_local(path: str, kind: str, local: bool) -> None:
    assert mount_type(MOUNTS, path) == kind
    assert is_local(kind) is local


def test_a_network_file_system_is_refused_with_the_reason(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botkeep.workspace.filesystem_of", lambda _: "nfs4")
    with pytest.raises(BotkeepError, match="not local: locks there do not prove"):
        workspace.prepare()


# --- env files -----------------------------------------------------------------------------------------------------


def env(tmp_path: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path = tmp_path / ".env"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def test_an_env_file_knows_quotes_export_and_comments(tmp_path: Path) -> None:
    text = """\
# the keys of doge
export A=plain
B = spaced value # and a comment
C='single $HOME # kept'
D="double \\"quoted\\" \\n line" # comment
E=
F=a#b
G="two
lines"

export H=$A
I='' # nothing
A=last
"""
    assert load_env_file(env(tmp_path, text)) == {
        "A": "last",
        "B": "spaced value",
        "C": "single $HOME # kept",
        "D": 'double "quoted" \n line',
        "E": "",
        "F": "a#b",
        "G": "two\nlines",
        "H": "$A",
        "I": "",
    }


def test_windows_line_ends_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    assert load_env_file(env(tmp_path, b"\xef\xbb\xbfA=1\r\nB=2\r\n")) == {"A": "1", "B": "2"}


def test_values_of_an_env_file_are_hidden_from_then_on(tmp_path: Path) -> None:
    load_env_file(env(tmp_path, "ODD=correct-horse-battery\n"))
    assert "correct-horse-battery" not in untrusted.redact("the log says correct-horse-battery")


@pytest.mark.parametrize("line", ["just words", "1A=x", "A B=x", "='x'", "A='open", 'A="open', "A='x' y", "A=x\0y"])
def test_another_line_is_refused_with_its_number_and_not_its_text(tmp_path: Path, line: str) -> None:
    with pytest.raises(BotkeepError, match=r"\.env:3: not a KEY=VALUE line") as caught:
        load_env_file(env(tmp_path, f"A=1\n# B\n{line}\n"))
    assert line not in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o666, 0o620])
def test_an_env_file_that_others_can_reach_is_refused_with_the_command(tmp_path: Path, mode: int) -> None:
    with pytest.raises(BotkeepError, match=r"Run: chmod 600 "):
        load_env_file(env(tmp_path, "A=1", mode))


def test_an_env_file_must_be_there_regular_and_small(tmp_path: Path) -> None:
    with pytest.raises(BotkeepError, match="No such file"):
        load_env_file(tmp_path / "none")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(BotkeepError, match="not a regular file"):
        load_env_file(tmp_path / "fifo")
    with pytest.raises(BotkeepError, match="not a regular file"):
        load_env_file(tmp_path)
    with pytest.raises(BotkeepError, match="more than"):
        load_env_file(env(tmp_path, "A=" + "x" * 300_000))
    with pytest.raises(BotkeepError, match="not UTF-8"):
        load_env_file(env(tmp_path, b"A=\xff"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_an_env_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = env(tmp_path, "A=1")
    os.chown(path, 65534, 65534)
    with pytest.raises(BotkeepError, match="belongs to user 65534"):
        load_env_file(path)


@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True),
        st.text(st.characters(codec="ascii", exclude_characters="\0\r"), max_size=20),
        max_size=5,
    )
)
def test_any_value_survives_double_quotes(values: dict[str, str]) -> None:
    from botkeep.envfile import parse_env

    def quoted(text: str) -> str:
        return text.replace("\\", "\\\\").replace('"', '\\"')

    assert parse_env("".join(f'{key}="{quoted(value)}"\n' for key, value in values.items()), "x") == values


def test_a_misspelled_role_is_named(tmp_path: Path) -> None:
    text = (
        '{"bots": [{"name": "a", "data_file": "a.csv", "data_format": {"kind": "csv", "columns": {"pricee": "px"}}}]}'
    )
    (tmp_path / "config").mkdir()
    (tmp_path / "config/bots.json").write_text(text)
    problem = load_fleet(Workspace(tmp_path)).entries[0].problem
    assert problem is not None
    assert "pricee" in problem
    assert "price" in problem.replace("pricee", "")
