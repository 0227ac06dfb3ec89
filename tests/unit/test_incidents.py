"""Several bots with one cause: one incident, told once. Tables of verdicts and what the machine says."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from botkeep.causekinds import CauseKind, kind_of
from botkeep.config import Bot, load_fleet
from botkeep.exchanges import HOSTS, exchange_id, named_in
from botkeep.incidents import Incident, Party, incidents, party_of, strains
from botkeep.model import (
    Cause,
    CauseClass,
    DiskLook,
    Evidence,
    Fault,
    HostCause,
    HostLook,
    Observation,
    ProgramLook,
    Status,
    Verdict,
)
from botkeep.profiles import PROFILES
from botkeep.results import check_document
from botkeep.rounds import CheckReport
from botkeep.terminal import check_lines
from botkeep.workspace import Workspace

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
KNOWN = {one.id: one for one in PROFILES["plain"].signatures()}
LIMITED = 'binance GET https://api.binance.com/api/v3/klines 429 Too Many Requests {"code":-1003}'
BANNED = 'binance 418 I\'m a Teapot {"code":-1003,"msg":"Way too much; IP banned until 1795254686000."}'


def cause(
    signature: str, *, line: str = "", count: int = 3, ago: float = 60, lasted: float = 240, **more: Any
) -> Cause:
    """A cause as the packaged signature of this id gives it; `ago` and `lasted` in seconds."""
    known, last = KNOWN[signature], NOW - timedelta(seconds=ago)
    first = last - timedelta(seconds=lasted)
    return Cause(signature, known.cause, known.klass, known.fault, line or known.example, count, first, last, **more)


def verdict(bot: str, *causes: Cause, **more: Any) -> Verdict:
    status = more.pop("status", Status.FAULTY if any(one.fault for one in causes) else Status.HEALTHY)
    fault = more.pop("fault", next((one.fault for one in causes if one.fault), None))
    return Verdict(bot, status, NOW, f"{bot}: a sentence.", fault=fault, causes=causes, **more)


def party(bot: str, *causes: Cause, exchange: str = "binance", **more: Any) -> Party:
    shared = {key: more.pop(key) for key in ("address", "key", "folder") if key in more}
    return Party(bot, verdict(bot, *causes, **more), exchange, **shared)


def found(*parties: Party, host: HostLook | None = None) -> list[Incident]:
    return list(incidents(parties, host, NOW))


def ids(*parties: Party, host: HostLook | None = None) -> dict[str, tuple[str, ...]]:
    return {one.id: one.bots for one in found(*parties, host=host)}


# ------------------------------------------------------------------------------------------------------- rate limits


def test_a_ban_of_one_address_is_one_incident_of_all_bots_that_use_that_exchange() -> None:
    until = NOW + timedelta(minutes=40)
    (one,) = found(
        party("doge", cause("binance-ip-ban", line=BANNED, until=until, count=2)),
        party(
            "btc", cause("binance-weight", line=LIMITED, count=400), cause("binance-ip-ban", line=BANNED, until=until)
        ),
        party("eth", cause("rate-limited", line=LIMITED, count=7)),
        party("sol", cause("kraken-limit"), exchange="kraken"),
    )
    assert one.id == "rate:binance"
    assert one.sentence == (
        "3 of 4 bots: binance refuses requests from this address (418) until 12:40Z: doge, btc, eth."
    )
    assert (one.klass, one.fault, one.until) == (CauseClass.WAIT, Fault.API_RATE_LIMITED, until)
    assert one.since == NOW - timedelta(seconds=300)
    assert one.lines == "412 lines from 3 bots in 4 min"


def test_a_limit_without_a_ban_says_that_there_are_too_many_requests() -> None:
    (one,) = found(
        party("doge", cause("binance-weight", line=LIMITED)), party("btc", cause("rate-limited", line=LIMITED))
    )
    assert one.sentence == "2 of 2 bots: binance gets too many requests from this address (429): doge, btc."


def test_a_bot_with_an_address_of_its_own_is_not_part_of_it() -> None:
    limited = cause("binance-weight", line=LIMITED)
    bots = party("doge", limited), party("btc", limited), party("eth", limited, address="proxy.example")
    assert ids(*bots) == {"rate:binance": ("doge", "btc")}
    both = *bots, party("sol", limited, address="proxy.example")
    assert ids(*both)["rate:binance:proxy.example"] == ("eth", "sol")
    assert "binance gets too many requests that come through proxy.example" in found(*both)[1].sentence


def test_one_bots_trouble_is_no_incident() -> None:
    assert found(party("doge", cause("binance-weight")), party("btc")) == []
    assert found() == []


def test_the_exchange_is_the_one_that_the_bot_the_signature_or_the_line_names() -> None:
    bots = (
        party("doge", cause("rate-limited", line=LIMITED), exchange="binance"),
        party("btc", cause("binance-weight", line="nothing"), exchange=""),
        party("eth", cause("rate-limited", line=LIMITED), exchange=""),
        party("sol", cause("rate-limited", line="429 from somebody"), exchange=""),
        party("ada", cause("rate-limited", line="between binance and kraken"), exchange=""),
    )
    assert ids(*bots) == {"rate:binance": ("doge", "btc", "eth")}


@pytest.mark.parametrize(("ago", "together"), [(60 + 590, True), (60 + 610, False)])
def test_lines_further_apart_than_the_window_are_of_two_incidents(ago: float, together: bool) -> None:
    old = party("btc", cause("binance-weight", ago=ago))
    assert bool(found(party("doge", cause("binance-weight", ago=60)), old)) is together


def test_a_ban_that_lasts_counts_however_long_ago_its_line_was() -> None:
    banned = cause("binance-ip-ban", ago=7200, until=NOW + timedelta(hours=1))
    assert ids(party("doge", banned), party("btc", cause("binance-weight", ago=5))) == {"rate:binance": ("doge", "btc")}


def test_what_the_run_before_said_counts_for_nothing() -> None:
    assert found(*(party(bot, cause("binance-weight", this_run=False)) for bot in ("doge", "btc"))) == []


def test_rate_limits_are_counted_over_all_bots_per_exchange_and_address() -> None:
    until = NOW + timedelta(minutes=5)
    bots = (
        party("doge", cause("binance-weight", count=400, ago=0, lasted=600)),
        party("btc", cause("rate-limited", line=LIMITED, count=8, ago=100)),
        party("eth", cause("binance-weight", count=4, ago=200)),
        party("ada", cause("binance-weight", count=9), address="proxy.example"),
        party("sol", cause("kraken-limit", count=1, until=until, lasted=0), exchange="kraken"),
        party("xrp"),
    )
    seen = strains(bots, NOW)
    assert [(one.exchange, one.address, one.bots, one.words) for one in seen] == [
        ("kraken", "", ("sol",), "1 line from 1 bot in 1 min"),
        ("binance", "", ("doge", "btc", "eth"), "412 lines from 3 bots in 10 min"),
        ("binance", "proxy.example", ("ada",), "9 lines from 1 bot in 4 min"),
    ]
    assert seen[0].until == until


# -------------------------------------------------------------------------------------------------------------- keys


def test_a_refused_key_is_one_incident_of_the_bots_that_share_it() -> None:
    refused = cause("binance-key-refused")
    bots = (
        party("doge", refused, key="$BINANCE_KEY@.env"),
        party("btc", refused, key="$BINANCE_KEY@.env"),
        party("eth", refused, key="$BINANCE_KEY@eth.env"),
    )
    (one,) = found(*bots)
    assert one.sentence == "2 of 3 bots: the API key BINANCE_KEY is refused: doge, btc."
    assert (one.klass, one.fault) == (CauseClass.STOP, Fault.API_KEY_REJECTED)


def test_refusals_by_one_exchange_of_keys_that_nobody_named_are_one_incident() -> None:
    (one,) = found(*(party(bot, cause("binance-key-refused")) for bot in ("doge", "btc")))
    assert one.id == "key:binance"
    assert one.sentence == "2 of 2 bots: Binance refuses the API key, its permissions, or this address: doge, btc."


# --------------------------------------------------------------------------------------------- network, names, clock


def test_an_exchange_that_is_not_reached_is_one_incident_whatever_each_bot_calls_it() -> None:
    bots = (
        party("doge", cause("exchange-timeout")),
        party("btc", cause("connection-lost")),
        party("eth", cause("exchange-down")),
    )
    (one,) = found(*bots)
    assert (one.id, one.klass, one.fault) == ("exchange:binance", CauseClass.WAIT, None)
    assert one.sentence == "3 of 3 bots: binance is not reached, or does not serve requests: doge, btc, eth."


def test_several_exchanges_at_once_are_this_machines_network() -> None:
    bots = party("doge", cause("connection-lost")), party("btc", cause("connection-lost"), exchange="kraken")
    (one,) = found(*bots)
    assert one.id == "exchange:several"
    assert "so it is most likely this machine's network: doge, btc." in one.sentence


def test_bots_that_cannot_resolve_names_are_not_counted_again_for_what_follows() -> None:
    names, lost = cause("name-resolution"), cause("connection-lost")
    bots = party("doge", names, lost), party("btc", names, lost), party("eth", lost, exchange="okx")
    assert ids(*bots) == {"dns": ("doge", "btc")}
    text = "This machine cannot resolve api.binance.com: the name servers do not answer (asked for 3.0 s)."
    (one,) = found(*bots, host=HostLook(NOW, causes=(HostCause("dns", text, certain=True),)))
    assert one.sentence == (
        "2 of 3 bots: This machine cannot resolve api.binance.com: the name servers do not answer (asked for 3.0 s): "
        "doge, btc."
    )


def test_a_clock_that_is_off_is_one_incident_over_all_exchanges() -> None:
    bots = party("doge", cause("clock-off")), party("btc", cause("clock-off"), exchange="kraken")
    (one,) = found(*bots, host=HostLook(NOW, clock_offset=-3.21))
    assert one.id == "clock"
    assert one.sentence == "2 of 2 bots: by what a log says, this machine's clock is 3.2 s behind: doge, btc."
    assert one.klass is CauseClass.HOST
    assert found(*bots)[0].sentence == (
        "2 of 2 bots: The exchange refuses the time that this machine's clock shows: doge, btc."
    )


def test_a_country_that_is_not_served_is_one_incident() -> None:
    (one,) = found(*(party(bot, cause("geo-block")) for bot in ("doge", "btc")))
    assert "binance does not serve the country that this machine is in" in one.sentence
    assert one.klass is CauseClass.STOP


# ------------------------------------------------------------------------------------------------------- the machine


def _full(bot: str, folder: str) -> Party:
    fact = Evidence(Fault.DISK_FULL, "free_below", True, f"{bot} has 12 MB of disk left where it writes.")
    return party(bot, fault=Fault.DISK_FULL, status=Status.FAULTY, evidence=(fact,), folder=folder)


def test_bots_on_one_full_disk_are_one_incident_and_those_on_another_are_not() -> None:
    text = "The disk of /srv/a has 12 MB of 100 GB left."
    disks = DiskLook("/srv/a", ("/srv/a", "/srv/b"), 12_000_000, 10**11), DiskLook("/mnt", ("/mnt",), 10**10, 10**11)
    host = HostLook(NOW, causes=(HostCause("disk", text, certain=True),), disks=disks)
    bots = _full("doge", "/srv/a"), _full("btc", "/srv/b"), party("eth", cause("disk-full"), folder="/mnt")
    (one,) = found(*bots, host=host)
    assert (one.id, one.fault, one.klass) == ("disk:/srv/a", Fault.DISK_FULL, CauseClass.HOST)
    assert one.sentence == "2 of 3 bots: The disk of /srv/a has 12 MB of 100 GB left: doge, btc."
    assert one.lines == ""


def test_one_disk_is_the_same_incident_whichever_of_its_bots_are_looked_at() -> None:
    def ids_by(folder: str) -> set[str]:
        host = HostLook(NOW, disks=(DiskLook(folder, (folder, "/srv/c"), 12_000_000, 10**11, mount="/srv"),))
        return set(ids(_full("doge", folder), _full("btc", "/srv/c"), host=host))

    assert ids_by("/srv/a") == ids_by("/srv/b") == {"disk:/srv"}


def test_several_bots_that_the_kernel_killed_for_lack_of_memory_are_one_incident() -> None:
    def killed(bot: str, ago: float) -> Party:
        fact = Evidence(Fault.OUT_OF_MEMORY, "kernel", True, f"{bot} was killed by the kernel for lack of memory.")
        down = NOW - timedelta(seconds=ago)
        return party(bot, fault=Fault.OUT_OF_MEMORY, status=Status.FAULTY, evidence=(fact,), down_since=down, up=False)

    assert ids(killed("doge", 30), killed("btc", 200), killed("eth", 7200)) == {"memory": ("doge", "btc")}


def test_what_is_a_bots_own_affair_is_never_shared() -> None:
    own = ("database-locked", "database-damaged", "configuration-error", "kill-switch", "telegram-conflict")
    assert found(*(party(bot, *map(cause, own)) for bot in ("doge", "btc"))) == []


def test_what_concerns_most_bots_stands_first_and_a_sentence_names_ten() -> None:
    many = [party(f"bot{number:02}", cause("clock-off")) for number in range(14)]
    first, second = found(*(party(bot, cause("geo-block")) for bot in ("doge", "btc")), *many)
    assert first.sentence.endswith("bot08, bot09 and 4 more.")
    assert len(first.bots) == 14
    assert second.id == "place:binance"


@pytest.mark.parametrize(
    ("signature", "kind"),
    [
        ("binance-ip-ban", CauseKind.RATE), ("bybit-key-refused", CauseKind.KEY), ("clock-off", CauseKind.CLOCK),
        ("name-resolution", CauseKind.DNS), ("disk-full", CauseKind.DISK), ("disk-error", CauseKind.DISK),
        ("out-of-memory", CauseKind.MEMORY), ("geo-block", CauseKind.PLACE), ("exchange-down", CauseKind.EXCHANGE),
        ("exchange-timeout", CauseKind.EXCHANGE), ("connection-lost", CauseKind.EXCHANGE),
        ("kill-switch", CauseKind.OWN), ("kraken-nonce", CauseKind.OWN), ("database-locked", CauseKind.OWN),
    ],
)  # fmt: skip
def test_what_a_packaged_signature_is_about(signature: str, kind: CauseKind) -> None:
    assert kind_of(cause(signature)) is kind


def test_waiting_for_something_else_than_an_exchange_is_not_the_exchanges() -> None:
    broker = replace(cause("connection-lost"), signature="hummingbot-mqtt")
    assert kind_of(broker) is CauseKind.OWN


# -------------------------------------------------------------------------------------------------- from configuration


@pytest.fixture
def bots(tmp_path: Path) -> Callable[..., list[Bot]]:
    def load(*entries: dict[str, Any]) -> list[Bot]:
        (tmp_path / "config").mkdir(exist_ok=True)
        (tmp_path / "config/bots.json").write_text(json.dumps({"bots": list(entries)}))
        loaded = load_fleet(Workspace(tmp_path))
        assert [one.problem for one in loaded.entries] == [None] * len(entries)
        return list(loaded.bots)

    return load


def _process(name: str, **more: Any) -> dict[str, Any]:
    return {"kind": "process", "command": ["python", f"{name}.py"], **more}


def test_what_bots_share_comes_from_their_configuration(bots: Callable[..., list[Bot]], tmp_path: Path) -> None:
    account = {"id": "binance", "api_key_env": "BINANCE_KEY", "symbols": ["DOGE/USDT"]}
    doge, btc, eth = bots(
        {"name": "doge", "data_file": "d/doge.csv", "runtime": _process("doge", env_file=".env"),
         "replay": {"exchange": account}},
        {"name": "btc", "runtime": _process("btc", env={"HTTPS_PROXY": "http://proxy.example:3128"}),
         "replay": {"exchange": {"id": "kraken", "api_key_env": "KRAKEN_KEY"}}},
        {"name": "eth", "replay": {"exchange": {"id": "okx", "endpoint": "https://okx.proxy.example/api"}}},
    )  # fmt: skip
    seen = Observation("x", NOW)
    parties = [party_of(one, verdict(one.name), seen) for one in (doge, btc, eth)]
    assert [(one.exchange, one.address, one.key) for one in parties] == [
        ("binance", "", "$BINANCE_KEY@.env"),
        ("kraken", "proxy.example", "$KRAKEN_KEY"),
        ("okx", "okx.proxy.example", ""),
    ]
    assert parties[0].folder == str(tmp_path / "d")


def test_the_program_knows_its_exchange_better_and_of_several_the_line_has_to_say(
    bots: Callable[..., list[Bot]],
) -> None:
    (bot,) = bots({"name": "doge", "replay": {"exchange": {"id": "binance"}}})
    for said, known in (
        ("binanceus", "binanceus"),
        ("binance_perpetual", "binanceusdm"),
        ("binance,kraken", ""),
        ("", "binance"),
    ):
        seen = Observation("doge", NOW, program=ProgramLook(exchange=said))
        assert party_of(bot, verdict("doge"), seen).exchange == known
    assert party_of(None, verdict("doge"), Observation("doge", NOW)) == Party("doge", verdict("doge"))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ccxt.base.errors.DDoSProtection: binance GET https://api.binance.com/api/v3/time 418", "binance"),
        ("freqtrade.exchange.kraken - WARNING", "kraken"),
        ("HTTP 502 Bad Gateway", ""),
        ("from binance to bybit", ""),
        ("BINANCE says no", "binance"),
        ("mybinancebot failed", ""),
        ("gate_io", "gate"),
        ("wss://stream.huobi.pro", "htx"),
        ("", ""),
    ],
)
def test_an_exchange_is_known_in_a_line_only_by_its_whole_name(text: str, name: str) -> None:
    assert named_in(text.replace("gate_io", "gateio")) == name


def test_every_name_stands_for_itself_and_hosts_are_names() -> None:
    assert all(exchange_id(name) == name for name in HOSTS)
    assert all("." in host and "/" not in host for host in HOSTS.values())


# -------------------------------------------------------------------------------------------------------- documents


def _report(parties: Sequence[Party]) -> CheckReport:
    return CheckReport(NOW, tuple(one.verdict for one in parties), incidents=incidents(parties, None, NOW))


def test_a_check_names_what_bots_share_once_and_first() -> None:
    until = NOW + timedelta(minutes=40)
    ban = replace(cause("binance-ip-ban", line=BANNED, until=until), advice="Wait until the ban is over.")
    report = _report([party("doge", ban), party("btc", ban), party("eth")])
    document = check_document(report, fold=True).model_dump(mode="json")
    assert list(document)[:2] == ["at", "incidents"]
    assert document["incidents"] == [
        {
            "id": "rate:binance",
            "sentence": "2 of 3 bots: binance refuses requests from this address (418) until 12:40Z: doge, btc.",
            "asks_for": "wait",
            "playbook": "api-rate-limited",
            "since": "2026-11-21T11:55:00Z",
            "lines": "6 lines from 2 bots in 4 min",
            "do": "Wait until the ban is over.",
        }
    ]
    lines = list(check_lines(report, UTC, colour=False))
    assert lines[0] == (
        "2 of 3 bots: binance refuses requests from this address (418) until 12:40Z: doge, btc. "
        "(wait, since 2026-11-21 11:55 UTC; 6 lines from 2 bots in 4 min)"
    )
    assert lines[1] == "  do: Wait until the ban is over."
    assert lines[2].startswith("doge")


def test_a_check_of_bots_that_share_nothing_says_nothing_of_it() -> None:
    report = _report([party("doge", cause("binance-weight")), party("btc")])
    assert "incidents" not in check_document(report, fold=True).model_dump(mode="json")
