"""The `botkeep` command: each command opens a desk, asks it for one thing and prints what it gave.

Imports stay inside the commands that need them: `botkeep check` runs every few minutes, on small machines too.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from . import __version__
from .model import (
    Action,
    ActionReport,
    Actor,
    BotkeepError,
    Observation,
    Result,
    StoreError,
    UsageError,
    Verdict,
    utc_now,
)  # fmt: skip

if TYPE_CHECKING:
    from pydantic import BaseModel

    from .ledger import Entry
    from .rounds import Desk
    from .workspace import Workspace

USED_WRONGLY = 2
INTERRUPTED = 130
PATIENT = frozenset({
    "backup", "check", "diagnose", "doctor", "journal", "pnl", "report", "restart", "restore", "round", "start",
    "status", "stop", "store",
})  # fmt: skip
"""Commands that may take a while, and print at their end."""
PIPE_CLOSED = 141
"""As a shell counts a program that SIGPIPE ended."""
SIDE_BY_SIDE = 8
ENTRIES = 50

Arguments = argparse.Namespace


def main(argv: Sequence[str]) -> int:
    """Run one command. Returns its exit code; what a BotkeepError says becomes one line on standard error."""
    try:
        code = _run(argv)
        _print()
    except BotkeepError as error:
        return _complain(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still in the buffer has nowhere else to go
        return PIPE_CLOSED
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _run(argv: Sequence[str]) -> int:
    try:
        asked = _parse(argv)
    except SystemExit as done:  # --help and --version
        return int(done.code or 0)
    if asked.command in PATIENT and _has_somebody_waiting(asked):
        from .live import waiting

        with waiting(f"botkeep {asked.command}"):
            return int(asked.run(asked))
    return int(asked.run(asked))


def _has_somebody_waiting(asked: Arguments) -> bool:
    """Whether a person sits in front of it, who is told that it takes a while: never in a pipe, nor beside JSON."""
    quiet = getattr(asked, "watch", False) or getattr(asked, "json", False)
    return not quiet and all(one is not None and one.isatty() for one in (sys.stdout, sys.stderr))


def _complain(error: BotkeepError) -> int:
    print(f"botkeep: {' '.join(str(error).split())}", file=sys.stderr)
    return USED_WRONGLY if isinstance(error, UsageError) else 1


# ---------------------------------------------------------------------------------------------------- what they share


def _workspace(asked: Arguments) -> Workspace:
    from .workspace import find_workspace

    return find_workspace(asked.home, os.environ, Path.cwd())


@contextmanager
def _desk(asked: Arguments, actor: Actor = Actor.PERSON) -> Iterator[Desk]:
    from .rounds import Desk

    gc.freeze()  # what the imports made stays for good; what a round makes is collected
    gc.enable()
    desk = Desk.open(_workspace(asked), actor)
    try:
        yield desk
    finally:
        desk.close()


def _since(asked: Arguments, desk: Desk) -> datetime | None:
    from .results import parse_since

    return parse_since(asked.since, desk.clock(), desk.zone()) if asked.since else None


def _print(*lines: str) -> None:
    """At once: nothing waits in a buffer. Raises BotkeepError for a full disk, on which cron's log may be."""
    if "botkeep.live" in sys.modules:
        sys.modules["botkeep.live"].hush()
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise BotkeepError(f"The output cannot be written: {error.strerror}. What was asked for is done.") from error


def _print_document(document: BaseModel) -> None:
    _print(document.model_dump_json(indent=2))


def _colour() -> bool:
    from .terminal import coloured

    return coloured(sys.stdout, os.environ)


def _login() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


# ---------------------------------------------------------------------------------------------------- looking


def _check(asked: Arguments) -> int:
    with _desk(asked) as desk:
        report = desk.check(asked.bots)
        zone = desk.zone() if report.incidents or report.silenced else UTC
    if asked.json:
        from .listings import full_check

        _print_document(full_check(report))
    else:
        from . import terminal

        _print(*terminal.check_lines(report, zone, colour=_colour()))
    return 0 if report.fine else 1


def _status(asked: Arguments) -> int:
    from . import silences, terminal
    from .listings import status_document

    if asked.watch:
        return _live(asked)
    with _desk(asked) as desk:
        now = desk.clock()
        seen = _glance(desk, asked.bots, now)
        held = silences.holding(desk.ledger, now)
        zone = desk.zone() if held else UTC
    if asked.json:
        _print_document(status_document(seen, now, held))
    else:
        _print(*terminal.status_lines(seen, now, colour=_colour()), *silences.sentences(held, now, zone))
    return 0


def _live(asked: Arguments) -> int:
    from . import live, silences
    from .fresh import Fresh

    if asked.json:
        raise UsageError("botkeep status: --watch is for people, --json for programs; write one of the two.")
    with _desk(asked) as desk:
        fresh, zone = Fresh(desk.workspace), desk.zone()
        desk.fresh = fresh

        def look() -> list[tuple[Verdict, Observation]]:
            return _glance(desk, asked.bots, desk.clock())

        def note() -> str:
            now = desk.clock()
            held = silences.sentences(silences.holding(desk.ledger, now), now, zone)
            return fresh.read().problem or "; ".join(held)

        return live.show(look, desk.clock, zone, sys.stdout, colour=_colour(), note=note)


def _glance(desk: Desk, names: Sequence[str], now: datetime) -> list[tuple[Verdict, Observation]]:
    """One look at each bot, which is neither recorded nor followed by a second one."""
    from .judge import decide
    from .probe import look

    bench = desk.bench()
    chosen = [bench.fleet.get(name).name for name in names] or [entry.name for entry in bench.fleet.entries]
    seen = look(bench.fleet, chosen, bench.cursor, now, bench.answer_within)
    looks = {name: seen[name].observation for name in chosen}
    return [(decide(looks[name], bench.playbooks, bench.history(name), now), looks[name]) for name in chosen]


def _diagnose(asked: Arguments) -> int:
    from . import terminal
    from .results import diagnosis_document

    with _desk(asked) as desk:
        found, zone = desk.diagnose(asked.bot), desk.zone()
    if asked.json:
        _print_document(diagnosis_document(found))
    else:
        _print(*terminal.diagnosis_lines(found, zone))
    return 0


def _doctor(asked: Arguments) -> int:
    from . import terminal
    from .listings import doctor_document

    with _desk(asked) as desk:
        found = desk.doctor()
    if asked.json:
        _print_document(doctor_document(found))
    else:
        _print(*terminal.doctor_lines(found, colour=_colour()))
    return 1 if any(one.level == "problem" for one in found) else 0


def _pnl(asked: Arguments) -> int:
    from . import terminal
    from .earnings import Wish, draw, read_marks, read_rates, unused
    from .results import pnl_document

    with _desk(asked) as desk:
        since = _since(asked, desk)
        wish = Wish(since, asked.method, read_marks(asked.mark), read_rates(asked.rate))
        found = desk.pnl(asked.bots, wish)
        pictures = draw(found, asked.charts, desk.zone()) if asked.charts else []
    document = pnl_document(found, since)
    if asked.json:
        _print_document(document)
    else:
        _print(*terminal.pnl_lines(document), *unused(wish, found), *map(str, pictures))
    return 0


def _report(asked: Arguments) -> int:
    from . import reporting

    kind = "json" if asked.json else asked.format or reporting.kind_of(asked.out)
    with _desk(asked) as desk:
        since = _since(asked, desk) or desk.clock() - timedelta(hours=24)
        text, drawn = reporting.made(desk, since, kind, charts=asked.charts)
    if asked.out is None:
        _print(text.rstrip("\n"), *map(str, drawn))
    else:
        reporting.save(text, asked.out)
        _print(*map(str, (asked.out, *drawn)))
    return 0


# ---------------------------------------------------------------------------------------------------- acting


def _round(asked: Arguments) -> int:
    from . import terminal
    from .listings import round_document

    with _desk(asked, Actor.ROUND) as desk:
        report, zone = desk.round(aside=True), desk.zone()
    if asked.json:
        _print_document(round_document(report))
    else:
        _print(*terminal.round_lines(report, zone, colour=_colour()))
    return 0 if report.fine else 1


def _watch(asked: Arguments) -> int:
    from . import heartbeat
    from .watch import watch

    with _desk(asked, Actor.ROUND) as desk:
        if asked.forget:
            if not heartbeat.is_free(desk.workspace):
                raise UsageError("It is watched now: end that process first (SIGTERM).")
            heartbeat.forget(desk.ledger)
            _print("Nobody misses a watcher any more.")
            return 0
        os._exit(watch(desk, _line))  # turns under way are settled by whoever looks next: nobody waits, nor closes


def _line(text: str) -> None:
    """One line of a process that runs for months; that its log cannot be written is no reason to end."""
    from .untrusted import strip

    try:
        for line in text.splitlines():
            print(f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S} {strip(line)}")
        sys.stdout.flush()
    except (OSError, ValueError):
        return


def _start(asked: Arguments) -> int:
    return _each(asked, lambda desk, name: desk.start(name, asked.reason, override=asked.override))


def _restart(asked: Arguments) -> int:
    return _each(asked, lambda desk, name: desk.restart(name, asked.reason, override=asked.override))


def _stop(asked: Arguments) -> int:
    return _each(asked, lambda desk, name: desk.stop(name, asked.reason))


def _poll(asked: Arguments) -> int:
    with _desk(asked) as desk:
        return _show_actions(asked, [desk.poll(asked.bot, asked.reason, less=asked.how == "less")])


def _each(asked: Arguments, deed: Callable[[Desk, str], ActionReport]) -> int:
    """Do it to every bot that was asked for, side by side; shown in their order, each as soon as it can be."""
    from concurrent.futures import ThreadPoolExecutor

    asked.reason = asked.reason or f"asked by {_login()} on the command line"
    with _desk(asked) as desk:
        names = _names(asked, desk)
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            return _show_actions(asked, pool.map(lambda name: _one(desk, name, deed), names))


def _names(asked: Arguments, desk: Desk) -> list[str]:
    """The bots asked for. Raises UsageError, before anything is done, for an unknown one and for none."""
    fleet = desk.bench().fleet
    if bool(asked.bots) is asked.all:
        raise UsageError(f"botkeep {asked.command}: name the bots, or say --all; one of the two.")
    names = [entry.name for entry in fleet.entries] if asked.all else [fleet.get(name).name for name in asked.bots]
    return list(dict.fromkeys(names))


def _one(desk: Desk, name: str, deed: Callable[[Desk, str], ActionReport]) -> ActionReport:
    """One bot's failure is its own report: the others go on."""
    try:
        return deed(desk, name)
    except BotkeepError as error:
        return ActionReport(name, Action.NOTE, Result.FAILED, str(error))


def _show_actions(asked: Arguments, reports: Iterable[ActionReport]) -> int:
    from . import terminal
    from .listings import actions_document

    done = []
    for report in reports:
        done.append(report)
        if not asked.json:
            _print(terminal.action_line(report, colour=_colour()))
    if asked.json:
        _print_document(actions_document(done))
    return 0 if all(report.ok for report in done) else 1


def _backup(asked: Arguments) -> int:
    if asked.accept and not asked.bots:
        raise UsageError("--accept takes a file as it is, whatever was changed in it: name the bots that it is for.")
    with _desk(asked) as desk:
        accept = f"{_login()} said: {asked.accept}" if asked.accept else ""
        return _show_actions(asked, desk.back_up(asked.bots, accept=accept))


def _store(asked: Arguments) -> int:
    from . import terminal

    if asked.dry_run and asked.what != "prune":
        raise UsageError(f"`botkeep store {asked.what}` changes nothing; --dry-run is for `botkeep store prune`.")
    with _desk(asked) as desk:
        if asked.what == "list":
            stores = desk.store_list(asked.bots)
            _print(*terminal.shelf_lines(stores))
            return 1 if any(isinstance(shelves, StoreError) for _, shelves in stores) else 0
        if asked.what == "prune":
            _print(*terminal.pruned_lines(desk.store_prune(asked.bots, dry_run=asked.dry_run), dry_run=asked.dry_run))
            return 0
        reports = desk.store_check(asked.sample)
        _print(*terminal.store_lines(reports))
        return 0 if all(not isinstance(report, StoreError) and report.ok for report in reports) else 1


def _restore(asked: Arguments) -> int:
    from . import terminal
    from .results import plan_document

    with _desk(asked) as desk:
        if asked.plan:
            reason = asked.reason or f"asked by {_login()} on the command line"
            return _show_actions(asked, [desk.restore(asked.bot, asked.plan, reason)])
        plan = plan_document(desk.plan_restore(asked.bot))
    if asked.json:
        _print_document(plan)
    else:
        _print(*terminal.plan_lines(plan))
    return 0


def _approve(asked: Arguments) -> int:
    with _desk(asked) as desk:
        return _show_entry(asked, desk.approve(asked.id, _login()))


def _note(asked: Arguments) -> int:
    with _desk(asked) as desk:
        return _show_entry(asked, desk.note(asked.text, asked.bot))


def _silence(asked: Arguments) -> int:
    from . import silences

    if asked.bot is None:
        return _show_silences(asked)
    with _desk(asked) as desk:
        bot = desk.bench().fleet.get(asked.bot).name
        if asked.end:
            return _show_entry(asked, silences.end(desk.journal, bot, desk.actor.value, desk.clock()))
        if asked.lasts is None:
            raise UsageError(f'Say for how long, and why: botkeep silence {bot} 2h "moving it to the new server".')
        lasts = silences.lasting(asked.lasts)
        return _show_entry(
            asked, silences.begin(desk.journal, bot, lasts, asked.reason or "", desk.actor.value, desk.clock())
        )


def _show_silences(asked: Arguments) -> int:
    from . import alert_lists, silences

    with _desk(asked) as desk:
        now, zone = desk.clock(), desk.zone()
        found = silences.active(desk.ledger, now)
    _show_document(asked, alert_lists.silences_document(found, now), alert_lists.silence_lines(found, now, zone))
    return 0


def _alerts(asked: Arguments) -> int:
    from . import alert_lists, outbox

    if asked.bot and asked.what != "test":
        raise UsageError("--bot is for `botkeep alerts test`.")
    with _desk(asked) as desk:
        if asked.what == "test":
            proofs = alert_lists.prove(desk.bench(), asked.bot)
            _show_document(asked, alert_lists.proof_document(proofs), alert_lists.proof_lines(proofs))
            return 0 if all(one.outcome.sent for one in proofs) else 1
        if asked.seen:
            outbox.seen(desk.ledger, desk.clock())
        found, zone = alert_lists.overview(desk.bench()), desk.zone()
    _show_document(asked, alert_lists.overview_document(found), alert_lists.overview_lines(found, zone))
    return 0


def _show_entry(asked: Arguments, entry: Entry) -> int:
    from .results import entry_document

    if asked.json:
        _print_document(entry_document(entry))
    else:
        _print(f"{entry.id}  {entry.sentence}")
    return 0


# ---------------------------------------------------------------------------------------------------- texts


def _journal(asked: Arguments) -> int:
    from . import terminal
    from .results import memory_document

    with _desk(asked) as desk:
        if asked.verify:
            return _verify(asked, desk)
        found, zone = desk.memory(asked.bot, _since(asked, desk), asked.limit + 1), desk.zone()
    if asked.json:
        _print_document(memory_document(found, asked.limit))
    else:
        _print(*terminal.journal_lines(found[-asked.limit :], zone))
    return 0


def _verify(asked: Arguments, desk: Desk) -> int:
    problems = desk.journal.verify(desk.clock())
    if asked.json:
        _print(json.dumps({"agree": not problems, "problems": problems}, indent=2, ensure_ascii=False))
        return 1 if problems else 0
    _print(*(problems or ["The journal and the ledger agree, and nobody changed an entry."]))
    return 1 if problems else 0


def _playbooks(asked: Arguments) -> int:
    from . import terminal
    from .listings import playbooks_document
    from .results import playbook_document

    with _desk(asked) as desk:
        if asked.fault:
            one = desk.playbook(asked.fault)
            if asked.json:
                _print_document(playbook_document(one))
            else:
                _print(*terminal.playbook_text(one))
            return 0
        books = desk.bench().playbooks
    if asked.json:
        _print_document(playbooks_document(books))
    else:
        _print(*terminal.playbook_table(books))
    return 0


def _signatures(asked: Arguments) -> int:
    from . import signaturelist

    if asked.subcommand == "list":
        if asked.file is not None:
            raise UsageError("`botkeep signatures list` takes no file; `botkeep signatures check FILE` tries one.")
        causes = signaturelist.known_causes(_workspace_if_any(asked), asked.profile)
        _show_document(asked, causes, signaturelist.cause_lines(causes))
        return 0
    if asked.profile is not None:
        raise UsageError("--profile is for `botkeep signatures list`; an entry of a file says itself what it is for.")
    own = asked.file is None
    tried = signaturelist.tested_own(_workspace(asked)) if own else signaturelist.tested_file(asked.file)
    _show_document(asked, tried, signaturelist.tested_lines(tried))
    return USED_WRONGLY if tried.mend else 0


def _workspace_if_any(asked: Arguments) -> Workspace | None:
    """The packaged signatures can be listed anywhere; a workspace that was named has to be one."""
    try:
        return _workspace(asked)
    except UsageError:
        if asked.home or os.environ.get("BOTKEEP_HOME"):
            raise
        return None


def _show_document(asked: Arguments, document: BaseModel, lines: Iterable[str]) -> None:
    if asked.json:
        _print_document(document)
    else:
        _print(*lines)


def _schedule(asked: Arguments) -> int:
    from .config import load_fleet
    from .schedule import assistant_recipes, crontab_lines, load_schedule

    workspace = _workspace(asked)
    tasks, zone = load_schedule(workspace), load_fleet(workspace).timezone
    if not tasks:
        raise UsageError("config/schedule.json lists no task. `botkeep init` into another folder shows what it holds.")
    for recipe in (crontab_lines, assistant_recipes):
        _print(recipe(tasks, workspace.home, _command(), zone))
    return 0


def _supervisord_config(asked: Arguments) -> int:
    from .config import load_fleet
    from .supervisord_config import written
    from .wrapped import save

    workspace = _workspace(asked)
    workspace.prepare()  # supervisord refuses to start where the folder of a log is missing
    watcher = None if asked.no_watch else _command()
    made = written(load_fleet(workspace), server=asked.server, programs_only=asked.programs_only, watcher=watcher)
    if asked.out is None:
        _print(made.text.rstrip("\n"))
    else:
        save(made.text, asked.out)
        _print(f"{asked.out} is written. Try it: supervisord -n -c {asked.out}")
    for note in made.notes:
        print(f"botkeep: {note}", file=sys.stderr)
    return 0


def _systemd_units(asked: Arguments) -> int:
    from .config import load_fleet
    from .schedule import load_schedule
    from .systemd_writer import prepare_logs, store, written

    workspace = _workspace(asked)
    workspace.prepare()
    fleet = load_fleet(workspace)
    made = written(fleet, load_schedule(workspace), _command(), user=asked.user)
    if asked.out is None:
        _print(made.text.rstrip("\n"))
    else:
        store(made, asked.out)
        prepare_logs(fleet, made.bots)
        _print(*(f"{asked.out / name} is written." for name in made.files))
    for note in made.notes:
        print(f"botkeep: {note}", file=sys.stderr)
    return 0


def _swarm_stack(asked: Arguments) -> int:
    from .config import load_fleet
    from .swarm_stack import written
    from .wrapped import save

    made = written(load_fleet(_workspace(asked)), image=asked.image)
    if asked.out is None:
        _print(made.text.rstrip("\n"))
    else:
        save(made.text, asked.out)
        _print(f"{asked.out} is written. On a manager: docker stack deploy --compose-file {asked.out} {made.stack}")
    for note in made.notes:
        print(f"botkeep: {note}", file=sys.stderr)
    return 0


def _command() -> str:
    """The path of this botkeep: cron has no PATH to speak of."""
    called = Path(sys.argv[0])
    beside = Path(sys.executable).with_name("botkeep")
    return str(called.absolute() if called.name == "botkeep" else beside)


def _init(asked: Arguments) -> int:
    from .pack import init

    report = init(Path(asked.directory), utc_now())
    for what, names in (("made", report.created), ("updated", report.updated), ("kept", report.kept)):
        _print(*(f"{what:8}{name}" for name in names))
    _print(f"{report.workspace.home} is a botkeep workspace.", *report.notes)
    return 0


def _docs(asked: Arguments) -> int:
    from .docs import main as write_docs

    return write_docs(check=asked.check, parser=parser())


def _demo(asked: Arguments) -> int:
    from .demo import run

    return run(keep=asked.keep)


def _serve(asked: Arguments) -> int:
    workspace = _workspace(asked)  # first: a wrong folder is told at once, not after a second of imports
    if sys.stdin is None:
        raise UsageError("botkeep serve talks MCP on standard input, and that is closed.")
    if sys.stdin.isatty():
        print("botkeep: serve talks MCP; an assistant's host starts it. Ctrl+C ends it.", file=sys.stderr)
    from .rounds import Desk
    from .server import serve

    serve(lambda: Desk.open(workspace, Actor.ASSISTANT), read_only=asked.read_only)
    return 0


# ---------------------------------------------------------------------------------------------------- the parser


class _Parser(argparse.ArgumentParser):
    """argparse, with mistakes as UsageError and the closest word."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}. See: {self.prog} --help")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            from .fields import closest, show

            what = "command" if action.dest == "command" else (action.option_strings or [action.dest])[0]
            raise UsageError(f"There is no {what} {show(value)}; {closest(str(value), action.choices)}")


def _parse(argv: Sequence[str]) -> Arguments:
    """By the one command's own parser, if it comes first: to make all twenty takes longer than to look at a bot."""
    if not argv or argv[0] not in COMMANDS:
        return parser().parse_args(argv)
    name = argv[0]
    one = _Parser(f"botkeep {name}", description=_described(name), allow_abbrev=False)
    _add_arguments(one, name)
    one.set_defaults(command=name)
    return one.parse_args(argv[1:], Arguments(home=None))


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = _Parser("botkeep", description="Keeps trading bots alive.", allow_abbrev=False, formatter_class=_wide)
    top.add_argument("--version", action="version", version=f"botkeep {__version__}")
    top.add_argument("--home", metavar="DIR", help="the workspace; else $BOTKEEP_HOME, else the nearest folder above")
    top.set_defaults(run=lambda _: _show_help(top))
    commands = top.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for name, (_, about, _) in COMMANDS.items():
        one = commands.add_parser(name, help=about, description=_described(name), allow_abbrev=False)
        _add_arguments(one, name)
    return top


def _described(name: str) -> str:
    about = COMMANDS[name][1]
    return f"{about[0].upper()}{about[1:]}."


def _add_arguments(one: argparse.ArgumentParser, name: str) -> None:
    run, _, arguments = COMMANDS[name]
    one.set_defaults(run=run)
    for argument in arguments:
        argument(one)
    if name not in ("init", "docs", "demo"):
        one.add_argument("--home", metavar="DIR", default=argparse.SUPPRESS, help="the workspace")


def _wide(prog: str) -> argparse.HelpFormatter:
    """One line per command where the terminal allows it."""
    return argparse.HelpFormatter(prog, max_help_position=16)


def _show_help(top: argparse.ArgumentParser) -> int:
    top.print_help(sys.stderr)
    return USED_WRONGLY


Argument = Callable[[argparse.ArgumentParser], Any]


def _arg(*names: str, **how: Any) -> Argument:
    return lambda one: one.add_argument(*names, **how)


def _limit(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 100_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of entries; write 1 to 100000")
    return int(text)


def _profile(text: str) -> str:
    from .fields import closest, show
    from .profiles import PROFILES

    if text not in PROFILES:
        raise argparse.ArgumentTypeError(f"there is no profile {show(text)}; {closest(text, PROFILES)}")
    return text


def _share(text: str) -> float:
    if not re.fullmatch(r"0?\.\d{1,6}|1(\.0)?", text) or not float(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no share; write more than 0 and at most 1, like 0.1")
    return float(text)


BOT = _arg("bot", metavar="BOT", help="its name in config/bots.json")
BOTS = _arg("bots", metavar="BOT", nargs="*", help="names in config/bots.json; all bots if none is given")
ACTED_ON = _arg("bots", metavar="BOT", nargs="*", help="names in config/bots.json")
ALL = _arg("--all", action="store_true", help="every configured bot")
JSON = _arg("--json", action="store_true", help="print a JSON document: amounts as text, times in UTC")
SINCE = _arg("--since", metavar="TIME", help="24h, 7d or ISO 8601 (your zone, if it names none)")
REASON = _arg("--reason", metavar="TEXT", default="", help="why; for the journal")
OVERRIDE = _arg("--override", metavar="REASON", help="lift back-off, caps and mode of the playbooks; never never-two")
OF_BOT = _arg("--bot", metavar="BOT", help="of this bot")

COMMANDS: dict[str, tuple[Callable[[Arguments], int], str, tuple[Argument, ...]]] = {
    "init": (_init, "make a folder a workspace, or bring one up to date; keeps what you changed",
             (_arg("directory", metavar="DIR", help="the folder"),)),
    "doctor": (_doctor, "say what is missing, bot by bot, and how to mend it", (JSON,)),
    "check": (_check, "look at the bots; exit 0 all well, 1 a bot is faulty or unknown, 2 used wrongly", (BOTS, JSON)),
    "status": (_status, "show the bots in a table, at one quick look",
               (BOTS, _arg("--watch", action="store_true", help="again and again, until Ctrl-C"), JSON)),
    "diagnose": (_diagnose, "say why a bot is as it is", (BOT, JSON)),
    "round": (_round, "look, act by playbook, do what the schedule says: what cron calls", (JSON,)),
    "watch": (_watch, "look after the bots all day long: acts in the second in which one dies; Ctrl-C ends it",
              (_arg("--forget", action="store_true", help="do without a watcher from now on: nobody misses it"),)),
    "start": (_start, "start bots that do not run", (ACTED_ON, ALL, REASON, OVERRIDE, JSON)),
    "stop": (_stop, "end every copy of bots, proven", (ACTED_ON, ALL, REASON, JSON)),
    "restart": (_restart, "end every copy of bots and start one", (ACTED_ON, ALL, REASON, OVERRIDE, JSON)),
    "poll": (_poll, "have a bot ask its exchange less, or as usual again, by the setting that its limits name",
             (BOT, _arg("how", metavar="less|normal", choices=("less", "normal"), help="less, or normal again"),
              _arg("reason", metavar="REASON", help="why; for the journal"), JSON)),
    "approve": (_approve, "say yes to an action that a playbook asks a person for",
                (_arg("id", metavar="ID", help="as the refusal or the journal names it"), JSON)),
    "restore": (_restore, "plan how to mend a damaged data file; with --plan, do it",
                (BOT, _arg("--plan", metavar="ID", help="the plan to carry out"), REASON, JSON)),
    "backup": (_backup, "store verified snapshots of data files, and their second copies",
               (BOTS, _arg("--accept", metavar="REASON", default="",
                           help="take the files as they are although rows that were backed up have changed"), JSON)),
    "store": (_store, "check what the backup stores hold, list it, or remove what retention does not keep",
              (_arg("what", choices=("check", "list", "prune"), help="check reads everything back"), BOTS,
               _arg("--sample", metavar="SHARE", type=_share, help="check this share of the objects: 0.1 is a tenth"),
               _arg("--dry-run", action="store_true", help="with prune: only say what it would remove"))),
    "pnl": (_pnl, "show profit and loss, realised and open",
            (BOTS, SINCE, _arg("--method", choices=("fifo", "average"), default="fifo", help="else fifo"),
             _arg("--mark", metavar="SYMBOL=PRICE", action="append", default=[], help="what a symbol is worth now"),
             _arg("--rate", metavar="ASSET/CURRENCY=PRICE", action="append", default=[],
                  help="what one of an asset is worth, for fees and for adding currencies up"),
             _arg("--charts", metavar="DIR", type=Path, help="draw equity and daily P&L there, as PNG and SVG"), JSON)),
    "report": (_report, "print the health report of the last day, or since a time",
               (SINCE, _arg("--format", choices=("text", "markdown", "json", "html"),
                            help="text fits one message; html is one page; else by the ending of FILE"),
                _arg("--out", metavar="FILE", type=Path, help="write it there; else it is printed"),
                _arg("--charts", metavar="DIR", type=Path, help="draw uptime and equity there, as PNG"), JSON)),
    "alerts": (_alerts, "show what people were told of and what waits to be told, or prove that they can be told",
               (_arg("what", metavar="test", nargs="?", choices=("test",),
                     help="send a message to every channel; exit 0 all arrived, 1 one did not"),
                _arg("--bot", metavar="BOT", help="with test: those that are told of this bot"),
                _arg("--seen", action="store_true", help="what never arrived has been read here: no problem any more"),
                JSON)),
    "silence": (_silence, "tell nobody of a bot for a while; it is looked after all the same. Lists them without BOT",
                (_arg("bot", metavar="BOT", nargs="?", help="its name in config/bots.json"),
                 _arg("lasts", metavar="LENGTH", nargs="?", help="like 30m, 2h or 1d"),
                 _arg("reason", metavar="REASON", nargs="?", help="why; for the journal and every report"),
                 _arg("--end", action="store_true", help="end it now"), JSON)),
    "note": (_note, "add a note to the journal",
             (_arg("text", metavar="TEXT", help="one line"), OF_BOT, JSON)),
    "journal": (_journal, "show what was done, noted and told",
                (OF_BOT, SINCE, _arg("--limit", metavar="N", type=_limit, default=ENTRIES, help=f"at most; {ENTRIES}"),
                 _arg("--verify", action="store_true", help="find changed, missing and forged entries"), JSON)),
    "playbooks": (_playbooks, "list the playbooks in force, or print one",
                  (_arg("fault", metavar="FAULT", nargs="?", help="print this one"), JSON)),
    "signatures": (_signatures, "try your own signatures on their examples, or list every cause that is known",
                   (_arg("subcommand", choices=("check", "list"), help="check: exit 0 all good, 2 one is not"),
                    _arg("file", metavar="FILE", nargs="?", type=Path, help="check this one; else the workspace's own"),
                    _arg("--profile", metavar="NAME", type=_profile, help="list what counts for its bots"), JSON)),
    "schedule": (_schedule, "print crontab lines, and how to have an assistant woken", ()),
    "supervisord-config": (_supervisord_config, "write a safe configuration for supervisord from config/bots.json",
             (_arg("--out", metavar="FILE", type=Path, help="write it there; else it is printed"),
              _arg("--server", metavar="URL", help="for this supervisord, where the bots name several"),
              _arg("--programs-only", action="store_true", help="to be included by a configuration that you have"),
              _arg("--no-watch", action="store_true", help="without botkeep's own watcher: something else runs it"))),
    "systemd-units": (_systemd_units, "write units for systemd: config/bots.json's, botkeep's own watcher and timer",
             (_arg("--out", metavar="DIR", type=Path, help="write them there; else they are printed"),
              _arg("--user", action="store_true", help="for your own systemd, not the machine's"))),
    "swarm-stack": (_swarm_stack, "write a stack for a Docker Swarm from config/bots.json, botkeep's watcher in it",
             (_arg("--out", metavar="FILE", type=Path, help="write it there; else it is printed"),
              _arg("--image", metavar="IMAGE", help="of the watcher, and of bots that name none"))),
    "docs": (_docs, "write the generated tables of this checkout",
             (_arg("--check", action="store_true", help="only say whether they are up to date"),)),
    "serve": (_serve, "answer an assistant over MCP on standard input and output",
              (_arg("--read-only", action="store_true", help="without the five tools that change something"),)),
    "demo": (_demo, "break four real bots in a temporary folder and bring them back",
             (_arg("--keep", action="store_true", help="keep the folder"),)),
}  # fmt: skip
