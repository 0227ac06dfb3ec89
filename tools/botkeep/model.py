"""The nouns of botkeep, as frozen dataclasses and enums.

Every time is timezone-aware UTC, every length of time a timedelta, every amount of money a Decimal in the
currency named beside it. Nothing here does anything: the rooms below pass these to one another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any


class BotkeepError(Exception):
    """Something a person or an assistant has to know. The text stands alone: asked, found, what to do next."""


class UsageError(BotkeepError):
    """The caller's mistake (unknown bot, unreadable configuration): one line, exit code 2."""


class ConfigError(UsageError):
    """A configuration file that cannot be used at all."""


class LedgerError(BotkeepError):
    """The ledger cannot be written or read. No ledger, no action."""


class EngineError(BotkeepError):
    """A runtime's engine (the kernel, Docker, supervisord) did not do or would not say what it was asked."""


class StoreError(BotkeepError):
    """A backup store cannot be written or read."""


class Status(StrEnum):
    """What a bot is, at one look."""

    HEALTHY = "healthy"
    FAULTY = "faulty"
    STOPPED = "stopped"
    UNKNOWN = "unknown"


class Fault(StrEnum):
    """What is wrong. The value is the stem of the playbook; the order is the order of importance.

    A fault that makes a restart useless or harmful stands before bot-not-running, so that the playbook that
    forbids the restart is the one a verdict names.
    """

    BOT_DUPLICATED = "bot-duplicated"
    TRADING_TOO_OFTEN = "trading-too-often"
    API_KEY_REJECTED = "api-key-rejected"
    DISK_FULL = "disk-full"
    DATA_CORRUPT = "data-corrupt"
    API_RATE_LIMITED = "api-rate-limited"
    OUT_OF_MEMORY = "out-of-memory"
    BOT_CRASH_LOOPING = "bot-crash-looping"
    BOT_NOT_RUNNING = "bot-not-running"
    BOT_HUNG = "bot-hung"
    BOT_IMPAIRED = "bot-impaired"
    HEALTH_ENDPOINT_FAILING = "health-endpoint-failing"
    DATA_STALE = "data-stale"


FAULT_ORDER: dict[Fault, int] = {fault: place for place, fault in enumerate(Fault)}


class Wanted(StrEnum):
    """What the last explicit start, restart or stop asked for."""

    UP = "up"
    DOWN = "down"


class Action(StrEnum):
    """Something that changes the world."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"
    RESTORE = "restore"
    BACKUP = "backup"
    POLL = "poll"
    ALERT = "alert"
    NOTE = "note"
    APPROVE = "approve"


class Actor(StrEnum):
    """Who asked. All of them meet the same permits."""

    ASSISTANT = "assistant"
    PERSON = "person"
    ROUND = "round"
    ENGINE = "engine"
    """Nobody asked: Docker, supervisord or another engine restarted the bot by itself."""


class InstanceState(StrEnum):
    """A live instance runs, is frozen (SIGSTOP, cgroup freezer, paused container), or only starts."""

    RUNNING = "running"
    FROZEN = "frozen"
    STARTING = "starting"


@dataclass(frozen=True)
class Instance:
    """One running copy of a bot. `key` never names another one, before or after: not after a reused pid or a reboot."""

    key: str
    pid: int | None
    state: InstanceState
    started_at: datetime | None
    ours: bool
    """Started by botkeep: its exit will be known."""
    how: str
    """How it was found: recorded, command, process_name, writer, lock, or descendant."""
    members: tuple[int, ...] = ()
    """Every process of this instance: the bot, its workers, its wrapper shells."""
    rss_bytes: int | None = None
    entry: str | None = None
    """The ledger entry (intent) that started it."""
    kept_by: str = ""
    """The engine that runs it, and knows how it ends: docker, supervisord, ... Empty: a plain process."""
    why_frozen: str = ""
    """How its engine holds it, and what lets it go on; empty: it is stopped by a signal, or not at all."""


@dataclass(frozen=True)
class Exit:
    """How an instance ended. `code` or `signal` is set when the end was seen; both None: it is not known."""

    key: str
    at: datetime | None
    code: int | None = None
    signal: int | None = None
    peak_rss_bytes: int | None = None
    out_of_memory: bool | None = None
    """True: the kernel counted an out-of-memory kill in the bot's cgroup. None: nobody can say."""
    failed_to_start: str | None = None
    """Why the command could not be executed at all (for example: No such file or directory)."""
    asked: bool = False
    """botkeep's own stop ended it."""


@dataclass(frozen=True)
class RuntimeLook:
    """What the bot's runtime says: live instances, the last exit, or why it cannot say."""

    instances: tuple[Instance, ...] = ()
    exit: Exit | None = None
    generation: int = 0
    """Counts the starts botkeep made; a restart asked with an older number has been done already."""
    error: str | None = None
    command_seen: str | None = None
    """The command line of a copy that is running, for `doctor`. Redacted."""
    restarts: int | None = None
    """How often the engine itself restarted the bot since it made the unit; None: it does not count."""
    starts: tuple[datetime, ...] = ()
    """When it started the bot, as far back as it tells; ours are among them."""
    asked: tuple[datetime, ...] = ()
    """Those of `starts` that somebody asked the engine for."""
    tells_restarts: bool = False
    """The engine tells its own restarts from a person's: by `restarts` or, where it counts none, by `asked`."""
    giving_up: str = ""
    """What the engine says of a bot that it starts again and again, or does not start any more: BACKOFF, FATAL, ..."""
    health: HealthLook | None = None
    """What the engine's own health check says; None: there is none."""
    notes: tuple[str, ...] = ()
    """Sentences for a person: a restart policy that will surprise, settings that wait for a new container."""
    units: Mapping[str, str] = field(default_factory=dict)
    """What its engine runs for it: a name that nothing else has, and what people call it."""
    only_once: str = ""
    """Why it could not be started again if it were stopped, and what to do; empty: it could."""


@dataclass(frozen=True)
class HealthLook:
    """One answer of a health endpoint."""

    ok: bool
    text: str
    rule: str
    """Which rule it broke: refused, timeout, status, redirect, too-long, wrong-owner, not-allowed, ok."""
    certain: bool = False
    seconds: float = 0.0


class DataVerdict(StrEnum):
    """What a format says about a data file. Only CORRUPT may lead to a restore."""

    OK = "ok"
    PENDING = "pending"
    SUSPECT = "suspect"
    CORRUPT = "corrupt"
    UNREADABLE = "unreadable"
    REPLACED = "replaced"
    MISSING = "missing"


@dataclass(frozen=True)
class Finding:
    """One damage in a data file."""

    rule: str
    """C1 to C15, as in CONTRIBUTING's table of damages."""
    text: str
    """One sentence with the evidence bytes, escaped, at most 200 characters of them."""
    certain: bool
    row: int | None = None
    """Counted from 1, the header not counted."""
    offset: int | None = None
    """Bytes from the start of the file."""
    key: str = ""
    """Equal in two looks at the same damage while the file is being written; empty: the file has to be the same one."""


@dataclass(frozen=True)
class Tempo:
    """How often a bot trades, from its own file."""

    newest: datetime | None = None
    gaps: tuple[float, ...] = ()
    """Seconds between successive trades, the last 200."""
    per_hour: tuple[tuple[int, int], ...] = ()
    """(hour since the epoch, trades in it), the last 336 hours that had any."""
    recent: tuple[float, ...] = ()
    """Epoch seconds of the last 500 trades."""


@dataclass(frozen=True)
class Inspection:
    """What a format saw in a data file, from the cursor on."""

    verdict: DataVerdict
    findings: tuple[Finding, ...] = ()
    rows: int | None = None
    size: int | None = None
    mtime: datetime | None = None
    identity: str = ""
    """dev:ino:size:mtime_ns, so that two looks can be told to have seen the same bytes."""
    read_from: int = 0
    """First byte that this inspection read: 0 for a full one."""
    tempo: Tempo = field(default_factory=Tempo)
    cursor: dict[str, Any] = field(default_factory=dict)
    """JSON; given back at the next inspection. Recorded by rounds, never by a look."""


@dataclass(frozen=True)
class Progress:
    """One sign that the bot is getting somewhere."""

    source: str
    """log, data, or the file that `progress` names."""
    at: datetime | None
    normal: timedelta | None
    """The longest pause that the bot's own history makes normal; None: not enough history."""
    samples: int
    """How many pauses that history holds."""


class CauseClass(StrEnum):
    """What a cause asks for."""

    WAIT = "wait"
    RESTART = "restart"
    STOP = "stop"
    """Stop and tell a person: a restart cannot help."""
    REPAIR = "repair"
    HOST = "host"


@dataclass(frozen=True)
class Cause:
    """A log signature that matched."""

    signature: str
    cause: str
    """One sentence."""
    klass: CauseClass
    fault: Fault | None
    line: str
    """The newest matching line: redacted, stripped, capped."""
    count: int
    first_at: datetime | None
    last_at: datetime | None
    until: datetime | None = None
    """A ban's end, where the line says so."""
    this_run: bool = True
    """False: the line belongs to the run that died."""
    source: str = ""
    advice: str = ""
    """What a good operator does about it: one or two sentences."""
    fades_at: datetime | None = None
    """When it means nothing any more, unless another such line comes."""


@dataclass(frozen=True)
class Mark:
    """A kind of log line that states a fact, not a cause: a heartbeat, an order, a fill that was not stored."""

    id: str
    at: datetime
    """Of the newest such line."""
    values: Mapping[str, str]
    """The named groups of the newest: stripped, redacted, at most 80 characters each."""
    count: int
    first_at: datetime
    this_run: bool = True
    """False: the newest of them belongs to the run that died."""
    gaps: tuple[float, ...] = ()
    """Seconds between successive ones, the last 20."""
    who: tuple[tuple[str, datetime], ...] = ()
    """Distinct values of the group `who` (a pid) in this run, the newest first, at most 8, with their last times."""


@dataclass(frozen=True)
class LogLook:
    """What one look at a log gives."""

    causes: tuple[Cause, ...] = ()
    """Of the newest run first, then the newest first."""
    marks: Mapping[str, Mark] = field(default_factory=dict)
    """By id."""
    newest_line_at: datetime | None = None
    mtime: datetime | None = None
    gaps: tuple[float, ...] = ()
    """Seconds: the pauses between lines, at most 200, those of the last days that are long enough to tell."""
    cursor: dict[str, Any] = field(default_factory=dict)
    """JSON; given back at the next look."""
    problem: str | None = None
    """Why the log could not be read: one sentence."""
    skipped: int = 0
    """Bytes of new lines that were too many for this look and are not known."""
    slow: tuple[str, ...] = ()
    """Ids of patterns that took so long that they were left out of the rest of this look."""


@dataclass(frozen=True)
class LivePosition:
    """One open trade as the bot's own API gives it. Amounts exactly as written, in `currency`."""

    id: str
    symbol: str
    side: str
    """long or short."""
    amount: Decimal
    entry: Decimal
    currency: str = ""
    stake: Decimal | None = None
    price: Decimal | None = None
    """The current one, as the bot sees it."""
    unrealised: Decimal | None = None
    opened: datetime | None = None


@dataclass(frozen=True)
class ProgramLook:
    """What a profile sees of a bot beyond its process. Empty fields: not known, or the program has no such thing."""

    state: str = ""
    """running, paused (no new positions), stopped (trades nothing), starting."""
    state_from: str = ""
    """api or log."""
    booted_at: datetime | None = None
    loop_known: bool = False
    """The bot's API told about its main loop: then `loop_at` None means that the first one is not done yet."""
    loop_at: datetime | None = None
    """When the main loop was last done."""
    heartbeat_at: datetime | None = None
    """Newest of this run."""
    heartbeat_pid: int | None = None
    heartbeat_every: timedelta | None = None
    """The usual distance; None: the program has none, it is switched off, or too few were seen."""
    others: tuple[int, ...] = ()
    """Pids that said in this bot's log that they are this bot, live, and are none of its instances."""
    blind: str = ""
    """What says that it gets no fresh data for any of its markets: a clause. Empty: nothing does."""
    open_trades: int | None = None
    positions: tuple[LivePosition, ...] | None = None
    """None: nobody can say; empty: none are open."""
    version: str = ""
    exchange: str = ""
    """As ccxt calls it."""
    paper: bool | None = None
    api: str = ""
    """Why its API said nothing that can be used: a sentence. Empty: it answered, or none is configured."""
    api_rule: str = ""
    """Which rule the API broke, as HealthLook.rule; also unauthorized, not-ready, not-json; ok; empty: not asked."""
    progress: tuple[Progress, ...] = ()
    """Further signs of progress, beside log and data (`hbot status`, an MQTT heartbeat, the growth of a WAL)."""
    notes: tuple[str, ...] = ()
    """Sentences that a person should know and nothing is done about."""
    cursor: dict[str, Any] = field(default_factory=dict)
    """JSON; given back at the next look."""


@dataclass(frozen=True)
class HostCause:
    """Something about this machine that keeps bots from working."""

    id: str
    """disk, memory, oom-kill, clock, dns."""
    text: str
    """One sentence with the figures."""
    certain: bool
    at: datetime | None = None


@dataclass(frozen=True)
class DiskLook:
    """One file system that bots write to."""

    path: str
    """One of the folders that were asked for."""
    paths: tuple[str, ...]
    """All of them that are on it."""
    free: int
    """Bytes for ordinary users."""
    total: int
    files_free: int | None = None
    """How many more files it takes; None: it has no fixed number of them."""
    read_only: bool = False
    mount: str = ""
    """Where the file system begins: the same whichever of its folders were asked for."""


@dataclass(frozen=True)
class OomKill:
    """The kernel ended a process for lack of memory: one line of its log."""

    at: datetime
    """Reckoned from the kernel's own clock, which drifts: minutes after months."""
    pid: int
    """As the machine's first pid namespace counts."""
    name: str
    """What the process called itself: at most 15 characters, stripped."""
    rss_bytes: int | None = None
    """What it held in memory."""
    whole_machine: bool = True
    """False: a cgroup had used up its own limit."""


@dataclass(frozen=True)
class HostLook:
    """What is true of this machine now."""

    at: datetime
    causes: tuple[HostCause, ...] = ()
    memory_available: int | None = None
    """Bytes."""
    memory_total: int | None = None
    memory_pressure: float | None = None
    """Percent of the last 60 seconds in which some task waited for memory (PSI `some avg60`)."""
    swap_free: int | None = None
    clock_synchronised: bool | None = None
    """The kernel's own word; None: it cannot be asked."""
    clock_offset: float | None = None
    """Seconds, where somebody measured it."""
    clock_error: float | None = None
    """Seconds by which the clock may be wrong, as the kernel reckons; it grows while nothing sets the clock."""
    disks: tuple[DiskLook, ...] = ()
    """Each file system once, in the order of the folders asked for."""
    booted_at: datetime | None = None
    oom_kills: int | None = None
    """How many processes the kernel ended for lack of memory since then; the machine's own count."""
    kills: tuple[OomKill, ...] = ()
    """The newest last. Only an examination reads the kernel's log."""
    notes: tuple[str, ...] = ()
    """What else was found out, or nobody may say: sentences."""


@dataclass(frozen=True)
class Observation:
    """Everything seen in one look at one bot. `config_error` set: nothing else could be looked at."""

    bot: str
    at: datetime
    runtime: RuntimeLook = field(default_factory=RuntimeLook)
    health: HealthLook | None = None
    data: Inspection | None = None
    progress: tuple[Progress, ...] = ()
    causes: tuple[Cause, ...] = ()
    disk_free: int | None = None
    """Bytes free where the bot writes."""
    config_error: str | None = None
    can_restart: bool = False
    """A runtime is configured."""
    max_trades_per_hour: int | None = None
    profile: str = "plain"
    profile_why: str = ""
    """`configured`, or the clause by which it was recognised."""
    program: ProgramLook = field(default_factory=ProgramLook)
    marks: Mapping[str, Mark] = field(default_factory=dict)
    host: HostLook | None = None
    notes: tuple[str, ...] = ()
    """What of its log could not be read in full: sentences."""


@dataclass(frozen=True)
class Restart:
    """One attempt to start a bot, as the ledger knows it."""

    at: datetime
    entry: str
    actor: Actor
    after_fault: bool
    """False: it followed a stop on purpose, so it does not count for the back-off."""
    ok: bool | None
    """None: no outcome yet."""
    fresh: bool = False
    """A very first start, or one after a stop on purpose: no repetition of anything."""


@dataclass(frozen=True)
class Span:
    """A stretch of one status of one bot, from first to last look."""

    bot: str
    status: Status
    fault: Fault | None
    up: bool | None
    first: datetime
    last: datetime
    instance: str | None = None


@dataclass(frozen=True)
class Approval:
    """A person's yes to one asked action. `id` is its ledger entry."""

    id: str
    action: Action
    fault: str


@dataclass(frozen=True)
class Hold:
    """A round stopped the bot as a playbook says; only a person starts it again."""

    at: datetime
    entry: str
    fault: Fault
    why: str
    """The sentence of what was found."""


@dataclass(frozen=True)
class PersonStop:
    """A person stopped the bot, and no start came since: only a person's start takes it back."""

    at: datetime
    why: str
    failed: bool = False
    """Something of the bot was left, or whoever asked was killed before it was gone."""


@dataclass(frozen=True)
class History:
    """What the ledger says about one bot, as `judge` needs it. Newest last."""

    wanted: Wanted = Wanted.UP
    wanted_by: str = ""
    """One phrase: who stopped or started it, and when."""
    wanted_since: datetime | None = None
    """When somebody first asked for it again after it was stopped on purpose; None: no such stop is known."""
    restarts: tuple[Restart, ...] = ()
    """Starts that were made, those after a restore among them."""
    restores: tuple[Restart, ...] = ()
    """Restores that were made: they have the same caps."""
    spans: tuple[Span, ...] = ()
    approvals: tuple[Approval, ...] = ()
    """Given by a person, not yet used."""
    held: Hold | None = None
    """The round's stop that nobody has taken back."""
    person_stop: PersonStop | None = None
    """A person's stop that nobody has taken back."""
    traded_anew: datetime | None = None
    """Trades before this are not counted: the bot was stopped for them, and perhaps started by a person who knew."""
    runaway_hours: frozenset[int] = frozenset()
    """Hours since the epoch whose trades it was stopped for: no habit."""


@dataclass(frozen=True)
class Evidence:
    """A fact behind a fault."""

    fault: Fault
    rule: str
    certain: bool
    text: str
    key: str = ""
    """Equal in two looks if and only if they saw the same thing."""
    playbook: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What is true of one bot now, and which playbook to open."""

    bot: str
    status: Status
    at: datetime
    sentence: str
    fault: Fault | None = None
    others: tuple[Fault, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    confirmed: bool = True
    """Certain, or seen in two looks. False: suspect, take the second look first."""
    up: bool | None = None
    wanted: Wanted = Wanted.UP
    causes: tuple[Cause, ...] = ()
    instance: str | None = None
    pid: int | None = None
    generation: int = 0
    down_since: datetime | None = None
    notes: tuple[str, ...] = ()
    """What a person should mend that is no fault of the bot (a broken playbook, a missing runtime)."""
    profile: str = "plain"
    profile_why: str = ""
    program: ProgramLook = field(default_factory=ProgramLook)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """All standing faults, the first one first."""
        return (self.fault, *self.others) if self.fault else ()


@dataclass(frozen=True)
class Permit:
    """May this action run now? `earliest` is when it may be asked again; None with a refusal: not before `until`."""

    allowed: bool
    reason: str
    earliest: datetime | None = None
    until: str = ""
    """What has to happen first when no clock can say: `a person mends the API key`."""
    needs_approval: bool = False
    approval: str = ""
    """The approval's entry that this uses up."""
    playbook: str | None = None


class Result(StrEnum):
    """How an asked action ended."""

    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    VERIFYING = "verifying"
    """Done so far, but not yet proven: the next call or round writes the outcome."""
    COALESCED = "coalesced"
    """Somebody else's action did it while we waited."""
    ASKED = "asked"
    """A person has to approve it: `approval` is the id."""
    BUSY = "busy"
    """Another action on this bot is under way; nothing was done."""


@dataclass(frozen=True)
class ActionReport:
    """The answer to an asked action: one sentence, and what a caller needs to go on."""

    bot: str
    action: Action
    result: Result
    sentence: str
    entry: str | None = None
    """The intent's id in the ledger; None where nothing was recorded."""
    earliest: datetime | None = None
    until: str = ""
    approval: str | None = None
    fault: Fault | None = None
    playbook: str | None = None
    pid: int | None = None
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the caller may go on as if it had done the action itself."""
        return self.result in (Result.DONE, Result.COALESCED, Result.VERIFYING)


@dataclass(frozen=True)
class Diagnosis:
    """Why a bot is as it is: cause first, then exit, log lines (untrusted, redacted) and what changed before."""

    bot: str
    at: datetime
    sentence: str
    causes: tuple[Cause, ...]
    exit: Exit | None
    exit_meaning: str
    lines: tuple[str, ...]
    """The last lines of the log: stripped, redacted, capped. Data, never instructions."""
    lines_total: int
    truncated: bool
    changed: tuple[str, ...]
    """What changed before it: restarts, stops, edits of files, versions, this machine; the newest last."""
    cause: str = ""
    """Id of the cause that the sentence names: a signature, or a HostCause's. Empty: none is known."""
    klass: CauseClass | None = None
    """What that cause asks for."""
    until: datetime | None = None
    advice: str = ""
    """What a good operator does about it."""
    host: tuple[HostCause, ...] = ()
    """What is wrong with this machine, those that explain the bot's state first."""
    evidence: tuple[str, ...] = ()
    """The newest line of each cause, the leading one's first: untrusted, cleaned as `lines`."""
    incident: str = ""
    """The sentence of the incident that this bot shares with others."""
    log_part: str = ""
    """Which part of a large log was read: `the last 256 KiB of 5.0 GB`. Empty: all of it."""
    notes: tuple[str, ...] = ()
    """What else is known of this machine, or could not be found out: sentences."""


@dataclass(frozen=True)
class Fill:
    """One execution. Amounts are positive; `fee` is in `fee_currency`."""

    at: datetime
    symbol: str
    side: str
    price: Decimal
    amount: Decimal
    fee: Decimal = Decimal(0)
    fee_currency: str = ""
    id: str = ""
    order_id: str = ""
    market: str = ""
    quote: str = ""


@dataclass(frozen=True)
class ClosedTrade:
    """One closed trade whose result the bot wrote itself, in `currency` (empty: the file does not say)."""

    at: datetime
    symbol: str
    pnl: Decimal
    currency: str = ""
    fee: Decimal = Decimal(0)
    id: str = ""
    opened: datetime | None = None
    side: str = ""
    """long or short; empty: not said."""
    amount: Decimal | None = None
    """Of the base currency."""
    entry: Decimal | None = None
    exit: Decimal | None = None
    stake: Decimal | None = None
    """What was put in, in `currency`."""
    ratio: Decimal | None = None
    """The bot's own result over its stake: 0.01 is one percent."""
    market: str = ""
    reason: str = ""
    """Why it was closed, in the bot's word."""


@dataclass(frozen=True)
class OpenTrade:
    """One trade that the bot itself counts as open."""

    at: datetime
    symbol: str
    side: str
    """long or short."""
    amount: Decimal
    """Of the base currency, positive, what is still open."""
    entry: Decimal
    """Price it was opened at, in `currency`."""
    currency: str = ""
    id: str = ""
    market: str = ""
    stake: Decimal | None = None
    value: Decimal | None = None
    """What the opening cost with its fee, in `currency`; None: entry x amount x (1 + fee_open), a short the reverse."""
    fee_open: Decimal = Decimal(0)
    """A rate: 0.001 is a tenth of a percent."""
    fee_close: Decimal = Decimal(0)
    leverage: Decimal = Decimal(1)
    funding: Decimal = Decimal(0)
    """Received (paid: negative) so far."""
    realised: Decimal = Decimal(0)
    """Of parts that were closed already."""


@dataclass(frozen=True)
class Ended:
    """A trade that a log shows closed to its end, whatever else of it can be believed."""

    id: str
    symbol: str
    opened: datetime


@dataclass(frozen=True)
class Replay:
    """Trades read again from somewhere else than the data file: the bot's own log or events, or the exchange.

    The ones that the data file has too are among them. Nothing in it was guessed: what could not be read strictly, or
    is implausible, is in `quarantined`.
    """

    source: str
    """log or exchange."""
    name: str
    """For people: the file's name, or the exchange."""
    fills: tuple[Fill, ...] = ()
    closed: tuple[ClosedTrade, ...] = ()
    since: datetime | None = None
    """From here on all trades are in it; before, nothing can be proven by it. None: it proves nothing at all."""
    until: datetime | None = None
    """Up to here; None with `since`: up to now."""
    quarantined: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    ended: tuple[Ended, ...] = ()
    """Of a log of whole trades: those that it shows closed, also where their figures are not believed."""

    @property
    def trades(self) -> tuple[Fill | ClosedTrade, ...]:
        """Whichever of both it has."""
        return (*self.fills, *self.closed)


def utc_now() -> datetime:
    """The only clock. Called at the edges (server, command, shim records); everything below takes `now`."""
    return datetime.now(UTC)


def iso(at: datetime) -> str:
    """`2026-11-21T03:15:02.123456Z`: sorts as text, one form everywhere."""
    return f"{at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def parse_iso(text: str) -> datetime:
    """The reverse of `iso`; any ISO 8601 with a zone. Raises ValueError without one."""
    at = datetime.fromisoformat(text.replace("Z", "+00:00"))
    if at.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return at.astimezone(UTC)
