"""What `botkeep alerts` and `botkeep silence` print: what stands, waits and was sent; and the proof of a set-up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo

from . import open_alerts, outbox, silences, telling
from .bench import Bench
from .channels import EXAMPLE, Channel
from .judge import length
from .listings import SilencedBot, silence_document
from .model import UsageError
from .notify import Courier, Measure, Message, Outcome, directory
from .open_alerts import Open
from .outbox import Row
from .results import Document, stamp
from .silences import Silence
from .untrusted import clean

LATELY = 10
"""Messages that were sent, in the list."""


@dataclass(frozen=True)
class Overview:
    """Everything about being told, at one moment."""

    at: datetime
    opens: tuple[Open, ...]
    silenced: tuple[Silence, ...]
    waiting: tuple[Row, ...]
    lost: tuple[Row, ...]
    sent: tuple[Row, ...]
    """The newest last."""
    names: dict[str, str]
    """Channels by their key, for people."""
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Proof:
    """What came of a test message to one channel."""

    channel: str
    whose: str
    """The bot's, or everybody's."""
    outcome: Outcome

    @property
    def sentence(self) -> str:
        """`arrived at ...`, or `refused: why`."""
        if self.outcome.sent:
            return f"arrived at {self.channel} ({self.whose})"
        word = {"limited": "asked to wait", "away": "not delivered"}.get(self.outcome.rule, "refused")
        return f"{word} at {self.channel} ({self.whose}): {self.outcome.text}"


def overview(bench: Bench) -> Overview:
    """Raises LedgerError."""
    now, ledger = bench.clock(), bench.ledger
    channels = directory(bench.fleet).all
    return Overview(
        at=now,
        opens=open_alerts.load(ledger).opens,
        silenced=silences.active(ledger, now),
        waiting=tuple(outbox.rows(ledger, ("queued", "sending"))),
        lost=tuple(one for one in outbox.rows(ledger, ("dead",)) if not one.done),
        sent=tuple(reversed(outbox.rows(ledger, ("sent",), LATELY, newest_first=True))),
        names={key: one.name for key, one in channels.items()},
        problems=tuple(telling.untold(bench)),
    )


# --- the proof of a set-up ---------------------------------------------------------------------------------------


def prove(bench: Bench, bot: str | None) -> list[Proof]:
    """A message to every channel, or to those that are told of this bot; at once, past the queue.

    A channel that takes it is not left alone any longer. Raises UsageError where nobody is to be told.
    """
    chosen = _chosen(bench, bot)
    if not chosen:
        raise UsageError(f'config/bots.json names nobody to tell: add "notify": ["{EXAMPLE}"].')
    text = f"botkeep: this is a test of {bench.fleet.workspace.home.name}. If you read it, alerts reach you here."
    with Courier() as courier:
        return [Proof(one.name, whose, _tried(bench, courier, one, text)) for one, whose in chosen]


def _chosen(bench: Bench, bot: str | None) -> list[tuple[Channel, str]]:
    if bot is not None:
        bench.fleet.get(bot)
    known = directory(bench.fleet)
    if bot is not None:
        return [(one, bot if bot in known.own else "everybody's") for one in known.of([bot])]
    groups = [("everybody's", known.fleet), *known.own.items()]
    first = {one.key: (one, whose) for whose, group in reversed(groups) for one in group}
    return [first[key] for key in known.all]


def _tried(bench: Bench, courier: Courier, channel: Channel, text: str) -> Outcome:
    if channel.problem:
        return Outcome("refused", channel.problem)
    measure = courier.measure(channel)
    if not isinstance(measure, Measure):
        return measure
    outcome = courier.send(channel, Message(clean(text), "botkeep: test"))
    if outcome.sent:
        outbox.works(bench.ledger, channel)
    return outcome


# --- as text -----------------------------------------------------------------------------------------------------


def overview_lines(found: Overview, zone: tzinfo) -> Iterator[str]:
    """What stands, what is held back, what waits, what was lost and sent; what a person should mend last."""
    if not found.opens:
        yield "Nothing is wrong that people were told of."
    for one in found.opens:
        reminded = f", {one.reminders} reminders" if one.reminders else ""
        yield f"{one.id}  since {length(found.at - one.began)}{reminded}  {one.sentence}"
    yield from silences.sentences(found.silenced, found.at, zone)
    yield from (f"waits: {_what(one, found)}: {one.error or 'not tried yet'}" for one in found.waiting)
    yield from (f"lost: {_what(one, found)}: {one.error}" for one in found.lost)
    yield from (f"sent: {_clock(one.done, zone)} {_what(one, found)}" for one in found.sent)
    yield from (f"mend: {one}" for one in found.problems)


def _what(row: Row, found: Overview) -> str:
    where = found.names.get(row.channel, "a channel that is configured no more")
    return f"{row.entry} to {where}: {_first(row.message.text)}"


def _first(text: str) -> str:
    return clean(text.partition("\n")[0], 80)


def _clock(at: datetime | None, zone: tzinfo) -> str:
    return f"{at.astimezone(zone):%Y-%m-%d %H:%M}" if at else "-"


def proof_lines(proofs: Iterable[Proof]) -> Iterator[str]:
    """One line a channel."""
    return (one.sentence for one in proofs)


def silence_lines(found: Sequence[Silence], now: datetime, zone: tzinfo) -> Iterator[str]:
    """One line a bot."""
    yield from silences.sentences(found, now, zone) if found else ("No bot is silenced.",)


# --- as documents ------------------------------------------------------------------------------------------------


class OpenIncident(Document):
    """Something of which people were told and that is not over."""

    entry: str
    bots: tuple[str, ...]
    since: str
    told_at: str
    reminders: int
    severity: str
    sentence: str


class QueuedMessage(Document):
    """One message to one channel."""

    entry: str
    channel: str
    queued_at: str
    attempts: int
    may_have_arrived: bool = False
    sent_at: str | None = None
    error: str = ""


class AlertsDocument(Document):
    """Everything about being told."""

    at: str
    incidents: list[OpenIncident]
    silenced: list[SilencedBot]
    waiting: list[QueuedMessage]
    never_arrived: list[QueuedMessage]
    sent: list[QueuedMessage]
    problems: tuple[str, ...] = ()


class ChannelProof(Document):
    """What came of a test message."""

    channel: str
    whose: str
    arrived: bool
    result: str
    text: str = ""


class ProofDocument(Document):
    """Of all channels."""

    channels: list[ChannelProof]


class SilencesDocument(Document):
    """The silences that hold now."""

    at: str
    silenced: list[SilencedBot]


def overview_document(found: Overview) -> AlertsDocument:
    """The same for a program."""
    return AlertsDocument(
        at=stamp(found.at),
        incidents=[
            OpenIncident(
                entry=one.id, bots=one.bots, since=stamp(one.began), told_at=stamp(one.told), reminders=one.reminders,
                severity=one.severity, sentence=one.sentence,
            )
            for one in found.opens
        ],
        silenced=[silence_document(one) for one in found.silenced],
        waiting=[_message(one, found) for one in found.waiting],
        never_arrived=[_message(one, found) for one in found.lost],
        sent=[_message(one, found) for one in found.sent],
        problems=found.problems,
    )  # fmt: skip


def _message(row: Row, found: Overview) -> QueuedMessage:
    return QueuedMessage(
        entry=row.entry,
        channel=found.names.get(row.channel, ""),
        queued_at=stamp(row.queued),
        attempts=row.attempts,
        may_have_arrived=row.doubt,
        sent_at=stamp(row.done) if row.done else None,
        error=row.error,
    )


def silences_document(found: Sequence[Silence], now: datetime) -> SilencesDocument:
    """All of them."""
    return SilencesDocument(at=stamp(now), silenced=[silence_document(one) for one in found])


def proof_document(proofs: Iterable[Proof]) -> ProofDocument:
    """Of a test."""
    return ProofDocument(
        channels=[
            ChannelProof(
                channel=one.channel, whose=one.whose, arrived=one.outcome.sent, result=one.outcome.rule,
                text=one.outcome.text,
            )
            for one in proofs
        ]
    )  # fmt: skip
