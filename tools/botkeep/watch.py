"""Rounds without a model, on events: `botkeep watch`. One process for a workspace, which only waits.

It does nothing by itself: each bot's turn is `Desk.round_for`, in a thread of its own, so that nobody waits for a bot
whose engine is away. A turn comes when the kernel says that a bot's process ended, when Docker tells that something
happened to its container, when its `check_interval` is over, when a refused action may be asked for again, and when
bots.json was edited. Locks and the ledger are the same as for cron's rounds and assistants beside it: what one of them
does, no other does again. Killed at any moment, it leaves what they leave; the next start reconciles.
"""

from __future__ import annotations

import math
import os
import queue
import select
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import FrameType

from . import heartbeat
from .config import Bot, Fleet
from .durable import Lock
from .fresh import Fresh
from .lookout import Lookout, make_room
from .model import ActionReport, BotkeepError, Fault, Result, Status, UsageError, Verdict
from .rounds import Desk, RoundReport
from .runtimes import docker_events
from .untrusted import clean

TURN = 2.0
"""Seconds after which it wakes at the latest: edits and a clock that was set are seen then."""
TOGETHER = 0.05
"""Share of its interval by which a bot's turn comes early, to be looked at together with others: one pass over the
process table costs as much for one bot as for a hundred."""
THREADS = 32
SOON = 2.0
"""Seconds until the next look at a bot that was acted on without success."""
BUSY = 5.0
SCHEDULE = 20.0
"""Seconds between two looks at the schedule."""
FILES = "It is looked at every check_interval. Let botkeep open more files (`ulimit -n`, LimitNOFILE)."
LAST_WORD = 1.0
"""Seconds that its end may take for writing down that it ended."""
TAKEN_OVER = 1.0
"""Seconds to wait for a lock that whoever only asks for it holds for a moment."""


@dataclass(frozen=True)
class _Done:
    """A job that is over."""

    names: tuple[str, ...]
    report: RoundReport | None
    trouble: str = ""
    alone: bool = False
    aside: bool = False
    """It looked at no bot: people were told, or an assistant was woken."""


@dataclass(frozen=True)
class _Seen:
    """First looks of a job that goes on."""

    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True)
class _Heard:
    """What an engine told of these bots; or why it tells nothing now."""

    names: tuple[str, ...]
    about: str
    trouble: str


@dataclass(frozen=True)
class _Beaten:
    """It was written down that the watcher lives, or what hindered that; `word`: for those outside, if any."""

    trouble: str
    word: str | None


@dataclass
class Watch:
    """One watcher. `say`: where its lines go, one for each thing that it did or saw."""

    desk: Desk
    say: Callable[[str], None]
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def __post_init__(self) -> None:
        self.heart = heartbeat.Heart(self.desk.ledger, self.desk.clock, lambda *told: self._give(_Beaten(*told)))
        self.fresh = self.desk.fresh = Fresh(self.desk.workspace)
        self.poller = select.poll()
        self.lookout = Lookout(self.poller)
        self.outside = heartbeat.Outside()
        self.service = heartbeat.Service()
        self.streams = docker_events.Streams(lambda *told: self._give(_Heard(*told)))
        self.listened: Fleet | None = None
        self.done: queue.SimpleQueue[_Done | _Seen | _Heard | _Beaten] = queue.SimpleQueue()
        self.jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.threads, self.busy = 0, 0
        self.woken, self.waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.poller.register(self.woken, select.POLLIN)
        self.due: dict[str, float] = {}
        """Bot -> time.monotonic() of its next turn."""
        self.under_way: Counter[str] = Counter()
        """Bots that have a turn of their own now."""
        self.again: set[str] = set()
        """Those whose process ended meanwhile."""
        self.unseen: set[str] = set()
        """Who was not looked at since the last full pass."""
        self.sick: set[str] = set()
        """Those that were not well when they were looked at last."""
        self.said: dict[str, str] = {}
        self.told_of: set[str] = set()
        """Bots that an event was about, whose look after it is not over."""
        self.deaf: set[str] = set()
        """Engines whose events are away."""
        self.next_beat = self.next_schedule = 0.0
        self.planning = False
        self.stopping = ""

    # ------------------------------------------------------------------------------------------------ the loop

    def run(self) -> int:
        """Until SIGTERM, SIGINT or SIGHUP; gives the exit code. Raises UsageError if somebody watches already."""
        with heartbeat.lock_of(self.desk.workspace) as lock:
            self._take(lock)
            self._take_signals()
            fleet = self.fresh.read().fleet
            _warm_up()
            self._begin()
            self.say(f"watching {len(fleet.entries)} bots of {self.desk.workspace.home} (pid {os.getpid()})")
            self.service.tell("READY=1", f"STATUS=watching {len(fleet.entries)} bots")
            while not self.stopping:
                self._turn()
            self._end()
        return 0

    def _take(self, lock: Lock) -> None:
        if lock.acquire(wait=TAKEN_OVER):
            return
        last = heartbeat.newest(self.desk.ledger)
        who = f"pid {last.pid}, since {last.began:%Y-%m-%d %H:%M:%SZ}" if last else "another process"
        hangs = heartbeat.problem(self.desk.workspace, self.desk.ledger, self.desk.clock())
        advice = hangs or "One watcher is enough."
        raise UsageError(f"{self.desk.workspace.home} is watched already ({who}). {advice}")

    def _begin(self) -> None:
        """The first look must not find the sign of life of one that is dead by now."""
        self._beat("start")
        while not self.stopping and self.done.empty():
            self._rest(TURN)

    def _take_signals(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)
        signal.set_wakeup_fd(self.waker, warn_on_full_buffer=False)

    def _stop(self, number: int, _: FrameType | None) -> None:
        self.stopping = signal.Signals(number).name

    def _turn(self) -> None:
        """Wait for what comes first; then start whatever has its turn."""
        now = time.monotonic()
        fleet = self._fleet()
        self._start_due(fleet, now)
        if now >= self.next_beat:
            self._beat()
        if now >= self.next_schedule and not self.planning:
            self._look_at_schedule(now)
        for fd in self._rest(self._next(now) - now):
            if bot := self.lookout.ended(fd):
                self._look_at_once(bot)
        for bot in self.lookout.frozen():
            self._look_at_once(bot)
        while not self.done.empty():
            one = self.done.get()
            if isinstance(one, _Heard):
                self._hear(one)
            elif isinstance(one, _Beaten):
                self._take_in_beat(one)
            elif isinstance(one, _Seen):
                self._take_in_first(one, fleet)
            else:
                self._take_in(one, fleet)

    def _rest(self, seconds: float) -> list[int]:
        """Until something happens, for so long at most; the descriptors of processes that ended."""
        ends = [fd for fd, _ in self.poller.poll(max(0, int(seconds * 1000)))]
        if self.woken in ends:
            with suppress(BlockingIOError):
                os.read(self.woken, 4096)
        return [fd for fd in ends if fd != self.woken]

    def _next(self, now: float) -> float:
        waiting = [at for name, at in self.due.items() if not self.under_way[name]]
        return min([now + TURN, *waiting])

    def _end(self) -> None:
        """At once: an action under way is recorded as begun, and whoever comes next reconciles it."""
        from .runtimes import ready

        if threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(-1)
        self.service.tell("STOPPING=1")
        self.lookout.close()
        self.streams.end()
        ready.give_up()
        self.heart.stop(LAST_WORD)
        busy = f"; {self.busy} turns were under way: the next one who looks settles them" if self.busy else ""
        self.say(f"ended by {self.stopping}{busy}")

    # ------------------------------------------------------------------------------------------------ the fleet

    def _fleet(self) -> Fleet:
        """As it is on disk, or was when it was good last."""
        rules = self.fresh.read()
        if self.said.get("bots.json") and not rules.problem:
            self.say("config/bots.json is good again and in force.")
        self._mention(("bots.json",), rules.problem)
        if rules.fleet is not self.listened:
            self._take_over(rules.fleet)
        return rules.fleet

    def _take_over(self, fleet: Fleet) -> None:
        """New and edited bots have their turn now, at the interval that they have now; removed ones none any more."""
        before = {entry.name: entry for entry in self.listened.entries} if self.listened else {}
        names = {entry.name for entry in fleet.entries}
        now = time.monotonic()
        for entry in fleet.entries:
            if before.get(entry.name) != entry:
                self.due[entry.name] = now
                self.unseen.add(entry.name)
        for name in self.due.keys() - names:
            del self.due[name]
            self.unseen.discard(name)
            self.lookout.drop(name)
        self.listened = fleet
        make_room(len(names))
        self.streams.listen_for({bot.name: bot.runtime for bot in fleet.bots})

    def _mention(self, about: tuple[str, ...], text: str) -> None:
        """Once: what stays as it is need not be said again."""
        key = "|".join(about)
        if text and self.said.get(key) != text:
            self.say(text)
        self.said[key] = text

    # ------------------------------------------------------------------------------------------------ turns

    def _start_due(self, fleet: Fleet, now: float) -> None:
        """All who have their turn now, and those who nearly have: one job for each kind of engine."""
        if not any(at <= now for name, at in self.due.items() if not self.under_way[name]):
            return
        groups: dict[str, list[str]] = {}
        for name, at in self.due.items():
            bot = fleet.get(name).bot
            early = min(TOGETHER * interval_of(bot), 15.0)
            if at - early <= now and not self.under_way[name]:
                groups.setdefault(kind_of(bot), []).append(name)
                self.due[name] = now + interval_of(bot)
        for names in groups.values():
            self._submit(tuple(names))

    def _look_at_once(self, bot: str) -> None:
        """Its process ended. While it has a turn of its own, the end is that turn's to see, and is looked at after."""
        if self.under_way[bot]:
            self.again.add(bot)
            return
        self.under_way[bot] += 1
        self._submit((bot,), alone=True)

    def _hear(self, heard: _Heard) -> None:
        """Something happened to these bots' containers. Without the stream they have their turns at the usual times."""
        if heard.trouble:
            self.deaf.add(heard.about)
            self.say(f"{heard.trouble} Until its events are back, its bots are looked at every check_interval.")
        elif heard.about in self.deaf:
            self.deaf.discard(heard.about)
            self.say(f"The events of Docker at {heard.about} are back.")
        here = [name for name in heard.names if name in self.due]
        self.told_of.update(here)
        for name in here:
            if self.under_way[name] or len(here) == 1:
                self._look_at_once(name)
            else:  # all of an engine, together
                self.due[name] = time.monotonic()

    def _submit(self, names: tuple[str, ...], *, alone: bool = False) -> None:
        self._work(lambda: self._finish(names, alone=alone))

    def _work(self, job: Callable[[], None]) -> None:
        """Threads that end with the process: at SIGTERM nobody waits for an engine that is away."""
        self.busy += 1
        self.jobs.put(job)
        if self.busy > self.threads and self.threads < THREADS:
            self.threads += 1
            threading.Thread(target=self._worker, name=f"turn-{self.threads}", daemon=True).start()

    def _worker(self) -> None:
        while True:
            self.jobs.get()()

    def _finish(self, names: tuple[str, ...], *, alone: bool) -> None:
        try:
            report = self.desk.round_for(names, lambda verdicts: self._give(_Seen(tuple(verdicts))))
            self._give(_Done(names, report, alone=alone))
        except (BotkeepError, OSError) as error:
            self._give(_Done(names, None, str(error), alone))
        except Exception as error:  # noqa: BLE001 - what one bot's turn breaks on must not end the others' watcher
            self._give(_Done(names, None, f"{', '.join(names)}: {type(error).__name__}: {error}", alone))
        self.desk.prepare()

    def _give(self, done: _Done | _Seen | _Heard | _Beaten) -> None:
        self.done.put(done)
        with suppress(BlockingIOError):
            os.write(self.waker, b"d")

    # ------------------------------------------------------------------------------------------------ results

    def _take_in_first(self, seen: _Seen, fleet: Fleet) -> None:
        """Who is well is waited for from now on, while others of the same job are started."""
        for verdict in seen.verdicts:
            if verdict.bot in self.due and not self.under_way[verdict.bot] and verdict.status is Status.HEALTHY:
                self._follow(verdict, None, fleet.get(verdict.bot).bot)

    def _take_in(self, done: _Done, fleet: Fleet) -> None:
        """What a turn gave: said, waited for, and when each of its bots has its next turn."""
        self.busy -= 1
        if done.alone:
            self.under_way[done.names[0]] -= 1
        if done.aside:
            self._mention(("aside",), clean(done.trouble, 500))
            return
        if not done.names:
            self._take_in_schedule(done)
            return
        if done.report is None:
            self._failed(done)
            return
        actions = {one.bot: one for one in done.report.actions}
        self._tell(done.report)
        self._follow_up(done.report)
        for verdict in done.report.verdicts:
            if verdict.bot in self.due:
                self._follow(verdict, actions.get(verdict.bot), fleet.get(verdict.bot).bot)
                if verdict.status is Status.HEALTHY:
                    self._look_again(verdict, alone=done.alone)
        self._plan(done.report)
        for name in self.again & set(done.names):
            self.again.discard(name)
            self._look_at_once(name)
        self._passed(done.names)

    def _look_again(self, verdict: Verdict, *, alone: bool) -> None:
        """Something was told of it, and it is well all the same."""
        wait = math.inf
        if alone and verdict.pid is None:  # something ended: its engine may not have noticed yet
            wait = SOON
        elif verdict.bot in self.told_of:  # a health check that fails counts once the start is over
            start = self.fresh.read().playbooks.get(Fault.BOT_NOT_RUNNING).policy
            wait = start.verify.within.total_seconds() + 1.0
        self.told_of.discard(verdict.bot)
        self.due[verdict.bot] = min(self.due[verdict.bot], time.monotonic() + wait)

    def _plan(self, report: RoundReport) -> None:
        """Be there for a planned restart; one that is due and waits for something has its turn at the usual time."""
        for name, at in report.planned.items():
            wait = (at - self.desk.clock()).total_seconds()
            if name in self.due and wait > 0:
                self.due[name] = min(self.due[name], time.monotonic() + wait + 0.1)

    def _follow_up(self, report: RoundReport) -> None:
        """What may take minutes, and keeps no bot waiting: people are told, the assistant is woken."""
        if report.calls:
            for call in report.calls:
                self.say(f"waking the assistant for {', '.join(call.bots[:5])}: {call.why or call.refused}")
            self._work(lambda: self._aside(lambda: self.desk.wake(report.calls)))
        elif report.alerts:
            self._work(lambda: self._aside(self.desk.deliver))

    def _aside(self, job: Callable[[], object]) -> None:
        try:
            job()
        except (BotkeepError, OSError) as error:
            self._give(_Done((), None, str(error), aside=True))
        except Exception as error:  # noqa: BLE001 - a message that breaks must not end the watcher
            self._give(_Done((), None, f"{type(error).__name__}: {error}", aside=True))
        else:
            self._give(_Done((), None, aside=True))

    def _failed(self, done: _Done) -> None:
        self._mention(done.names, clean(f"{', '.join(done.names[:5])} could not be looked at: {done.trouble}", 500))
        for name in done.names:
            self.again.discard(name)
            if name in self.due:
                self.due[name] = min(self.due[name], time.monotonic() + heartbeat.EVERY.total_seconds() / 2)
        self._ping("fail")

    def _follow(self, verdict: Verdict, action: ActionReport | None, bot: Bot | None) -> None:
        """Wait for the end of what runs; come back when something can be done about what does not."""
        now, interval, exact = time.monotonic(), interval_of(bot), kind_of(bot) == "process"
        over = self.lookout.follow(verdict.bot, verdict.instance, verdict.pid, verdict.at, exact=exact)
        self._mention(("lookout", verdict.bot), self.lookout.problem and f"{self.lookout.problem} {FILES}")
        if over == 1:  # it ended between the look and now
            self._look_at_once(verdict.bot)
            return
        if over:  # its engine has not noticed yet
            self.due[verdict.bot] = min(self.due[verdict.bot], now + min(2.0 ** min(over, 16), interval))
        wait = _comes_back(verdict, action, self.desk.clock())
        if wait is not None:
            self.due[verdict.bot] = min(self.due[verdict.bot], now + min(wait, interval))

    def _tell(self, report: RoundReport) -> None:
        for action in report.actions:
            self._mention((action.bot, "action"), f"{action.result}: {action.sentence}")
        for verdict in report.verdicts:
            well = verdict.status is Status.HEALTHY
            if not well or verdict.bot in self.sick:
                self._mention((verdict.bot, "verdict"), f"{verdict.status}: {verdict.sentence}")
            (self.sick.discard if well else self.sick.add)(verdict.bot)
        for alert in report.alerts:
            self.say(f"alert: {alert.sentence}")
        for problem in report.problems:
            if problem != self.said.get("bots.json"):
                self._mention(("problem", problem), problem)

    def _passed(self, names: Iterable[str]) -> None:
        """After the last bot that was not looked at yet, the pass is full: those outside are told."""
        self.unseen.difference_update(names)
        if not self.unseen:
            self.unseen = set(self.due)
            self._beat("")

    # ------------------------------------------------------------------------------------------------ the rest

    def _look_at_schedule(self, now: float) -> None:
        """Backups and the report, where nobody else's round does them first."""
        self.next_schedule, self.planning = now + SCHEDULE, True

        def look() -> None:
            try:
                self.desk.deliver()
                self._give(_Done((), self.desk.do_what_is_due()))
            except (BotkeepError, OSError) as error:
                self._give(_Done((), None, str(error)))
            except Exception as error:  # noqa: BLE001 - a report that breaks must not end the watcher
                self._give(_Done((), None, f"{type(error).__name__}: {error}"))

        self._work(look)

    def _take_in_schedule(self, done: _Done) -> None:
        self.planning = False
        self._mention(("schedule",), clean(done.trouble, 500))
        if done.report is None:
            return
        for backup in done.report.backups:
            self._mention((backup.bot, "backup"), f"{backup.result}: {backup.sentence}")
        if done.report.report:
            self.say("the morning report is due:")
            self.say(done.report.report.rstrip())

    def _beat(self, word: str | None = None) -> None:
        """Have it written down that it lives; those outside are told the word if that can be done."""
        self.next_beat = time.monotonic() + heartbeat.EVERY.total_seconds()
        self.service.tell("WATCHDOG=1")
        heartbeat.mark(self.desk.workspace)
        self.heart.beat(word)

    def _take_in_beat(self, beaten: _Beaten) -> None:
        """Without a ledger nothing can be done, and those outside are told that."""
        self._mention(("heartbeat",), beaten.trouble)
        word = "fail" if beaten.trouble else beaten.word
        if word is not None:
            self._ping(word)

    def _ping(self, word: str) -> None:
        fleet = self.fresh.read().fleet
        if fleet.heartbeat_url:
            try:
                known = heartbeat.environment_for(fleet.notify_env)
            except BotkeepError as error:
                self._mention(("heartbeat_url",), str(error))
                return
            self.outside.say(fleet.heartbeat_url, word, {**known, **self.environment})
        self._mention(("heartbeat_url",), self.outside.problem)


def _warm_up() -> None:
    """Load now what the first restart would wait for."""
    from concurrent import futures

    from .runtimes import ready

    futures.ThreadPoolExecutor(1).shutdown()
    with suppress(OSError):
        ready.keep()


def interval_of(bot: Bot | None) -> float:
    """Seconds between two looks; an entry that is broken is looked at as a usual one is."""
    return float(bot.check_interval) if bot else 300.0


def kind_of(bot: Bot | None) -> str:
    """By what it is looked at: bots of one engine have their turns together, and wait for no other engine."""
    return bot.runtime.kind if bot and bot.runtime else "process"


def _comes_back(verdict: Verdict, action: ActionReport | None, now: datetime) -> float | None:
    """Seconds until a look at it can change something; None: at its usual time."""
    if action is None:
        return None
    if action.result is Result.REFUSED and action.earliest is not None:
        return max(SOON, (action.earliest - now + timedelta(seconds=0.2)).total_seconds())
    if action.result in (Result.BUSY, Result.VERIFYING):
        return BUSY
    return SOON if action.result is Result.FAILED and verdict.status is Status.FAULTY else None


def watch(desk: Desk, say: Callable[[str], None]) -> int:
    """Watch until told to end; the exit code. Raises UsageError if this workspace is watched already."""
    return Watch(desk, say).run()
