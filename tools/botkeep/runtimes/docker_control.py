"""What Docker and Compose share: asking an engine about all bots at once, starting, stopping, memory."""

from __future__ import annotations

import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import ModuleType
from typing import Any, TypeVar

from botkeep.model import EngineError, Exit

from .docker_address import Address, EngineConfig, address_of
from .docker_facts import Containers, Inspected, Listed
from .docker_units import BEFORE, Container, code_or_signal, container_of, order_of
from .ending import signal_all
from .engine import FailedToStartError, Unit, side_by_side
from .procs import cgroup_of, read_proc

INSPECT_SECONDS = 2.0
"""For one container: an engine may have locked one up and answer for all others."""
INSPECTS_AT_ONCE = 4
STOP_TAKES = 3.0
"""Seconds that an engine may take on top of the grace, to kill and to write it down."""
WOKEN_EVERY = 0.1

Found = tuple[Container, ...] | EngineError


class BotConfig(EngineConfig, ABC):
    """The `runtime` of a bot in a container: knows its own containers among all."""

    @abstractmethod
    def among(self, containers: Containers) -> tuple[Listed, ...]:
        """This bot's. Raises EngineError if there is none, naming the closest."""


class Memory:
    """What was found out about containers before and still holds. This one remembers nothing."""

    def recall(self, one: Listed) -> tuple[Inspected, Exit | None] | None:
        """What an earlier look found out, if this very run still lives, and how the run before had ended; None: ask
        the engine."""
        del one
        return None

    def keep(self, seen: Inspected, exit: Exit | None) -> None:  # noqa: A002 - the noun of the model
        """For later looks. `exit`: of the run before."""


def transport() -> ModuleType:
    """docker_transport, which loads the SDK: a tenth of a second, or two. Raises EngineError where there is none."""
    try:
        from . import docker_transport
    except ModuleNotFoundError as error:
        raise EngineError('Bots in containers need botkeep[docker]: pip install "botkeep[docker]".') from error
    return docker_transport


# ---------------------------------------------------------------------------------------------------- look


def units(configs: Mapping[str, BotConfig], seconds: float, memory: Memory | None = None) -> dict[str, Found]:
    """The containers of many bots: one list for each engine, and one further question for each container that is new,
    ended, or unhealthy. Never raises; never takes longer than `seconds`, whatever an engine does."""
    found: dict[str, Found] = {}
    groups: dict[Address, dict[str, BotConfig]] = {}
    for name, config in configs.items():
        try:
            groups.setdefault(address_of(config), {})[name] = config
        except EngineError as error:
            found[name] = error
    try:
        transport()  # before the clock runs
    except EngineError as error:
        return dict.fromkeys(configs, error)
    looks = [_Look(address, group, seconds, memory or Memory()) for address, group in groups.items()]
    side_by_side([one.run for one in looks], seconds)
    for look in looks:
        found |= look.found()
    return found


@dataclass
class _Look:
    """One engine and the bots that it runs, as the answers come in."""

    address: Address
    configs: Mapping[str, BotConfig]
    seconds: float
    memory: Memory
    picked: dict[str, tuple[Listed, ...] | EngineError] = field(default_factory=dict)
    seen: dict[str, Container | EngineError] = field(default_factory=dict)
    """By container."""
    error: EngineError | None = None

    def __post_init__(self) -> None:
        self.until = time.monotonic() + self.seconds

    def run(self) -> None:
        """Ask everything. Does not raise."""
        try:
            containers = list_containers(self.address, self._left())
        except EngineError as error:
            self.error = error
            return
        self.picked = self._with_copies(pick(self.configs, containers), containers)
        wanted = {one.id: one for group in self.picked.values() if isinstance(group, tuple) for one in group}
        unknown = [one for one in wanted.values() if not self._recalled(one)]
        _in_turns([lambda one=one: self._ask(one) for one in unknown], min(INSPECTS_AT_ONCE, len(unknown)))  # type: ignore[misc]

    def _with_copies(
        self, picked: dict[str, tuple[Listed, ...] | EngineError], containers: Containers
    ) -> dict[str, tuple[Listed, ...] | EngineError]:
        """And containers that no bot is configured as and that were made as one of them: the same bot once more."""
        known = {one.id for group in picked.values() if isinstance(group, tuple) for one in group}
        others = [one for one in containers.all if one.lives and one.id not in known and one.written]
        found = dict(picked)
        for name, group in picked.items():
            if isinstance(group, tuple):
                found[name] = self._and_copies(group, [one for one in others if looks_like(one, group)])
        return found

    def _and_copies(self, group: tuple[Listed, ...], alike: Sequence[Listed]) -> tuple[Listed, ...] | EngineError:
        """If nobody says whether one is a copy, nothing may be started beside it."""
        try:
            return (*group, *(one for one in alike if self._is_made_alike(one, group)))
        except EngineError as error:
            return error

    def _is_made_alike(self, one: Listed, group: Sequence[Listed]) -> bool:
        """Nothing of this is remembered: keys may stand in a container's variables. Raises EngineError."""
        made = if_there(lambda: self._recipe(one))
        return made is not None and made in [if_there(lambda each=each: self._recipe(each)) for each in group]  # type: ignore[misc]

    def _recipe(self, one: Listed) -> tuple[Any, ...]:
        with transport().talk(self.address, min(INSPECT_SECONDS, self._left())) as client:
            return recipe(client.inspect_container(one.id))

    def _left(self) -> float:
        return max(0.0, self.until - time.monotonic())

    def _recalled(self, one: Listed) -> bool:
        known = self.memory.recall(one)
        if known is None:
            return False
        unit = container_of(one, known[0], is_here=self.address.is_here)
        self.seen[one.id] = replace(unit, exit=known[1] or unit.exit)
        return True

    def _ask(self, one: Listed) -> None:
        try:
            self.seen[one.id] = self._inspected(one)
        except EngineError as error:
            self.seen[one.id] = error if self._left() else _too_slow(self.address, self.seconds)

    def _inspected(self, one: Listed) -> Container:
        talk = transport().talk
        with talk(self.address, min(INSPECT_SECONDS, self._left())) as client:
            seen = Inspected.model_validate(client.inspect_container(one.id))
        unit = container_of(one, seen, is_here=self.address.is_here)
        unit = replace(unit, pid=own_pid(unit), exit=self._how_the_run_before_ended(unit))
        if unit.pid is not None:
            self.memory.keep(seen, unit.exit)
        return unit

    def _how_the_run_before_ended(self, unit: Container) -> Exit | None:
        """When another run lives, a container itself only says when; the engine's diary may still have the rest."""
        talk, ended = transport().talk, unit.exit
        if unit.state is None or ended is None or ended.at is None or not ended.key.endswith(f"/{BEFORE}"):
            return ended
        with suppress(EngineError), talk(self.address, min(INSPECT_SECONDS, self._left())) as client:
            return from_diary(_diary(client, unit.id, ended.at), ended)
        return ended

    def found(self) -> dict[str, Found]:
        """By bot, also what is not known because the time was over."""
        if self.error:
            return dict.fromkeys(self.configs, self.error)
        return {name: self._of(name) for name in self.configs}

    def _of(self, name: str) -> Found:
        group = self.picked.get(name)
        if isinstance(group, EngineError):
            return group
        seen = [self.seen.get(one.id) for one in group or ()]
        if group is None or None in seen:
            return _too_slow(self.address, self.seconds)
        error = next((one for one in seen if isinstance(one, EngineError)), None)
        return error or tuple(one for one in seen if isinstance(one, Container))


def _too_slow(address: Address, seconds: float) -> EngineError:
    return EngineError(f"Docker at {address} gave no complete answer within {seconds:.0f} s.")


Answer = TypeVar("Answer")


def if_there(ask_for: Callable[[], Answer]) -> Answer | None:
    """None: it is gone by now. Raises EngineError if nobody says so."""
    try:
        return ask_for()
    except transport().RefusedError as error:
        if error.status == 404:
            return None
        raise


def _in_turns(jobs: Sequence[Callable[[], None]], at_once: int) -> None:
    """All of them, so many side by side; none raises, and each has a deadline of its own."""
    if at_once < 2:
        for job in jobs:
            job()
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(lambda job: job(), jobs))


def list_containers(address: Address, seconds: float) -> Containers:
    """Every container of an engine, the ended ones too. Raises EngineError."""
    with transport().talk(address, seconds) as client:
        return Containers.of(client.containers(all=True))


def pick(configs: Mapping[str, BotConfig], containers: Containers) -> dict[str, tuple[Listed, ...] | EngineError]:
    """Each bot's containers. Two bots that mean the same one are both told so: neither may be acted on."""
    picked: dict[str, tuple[Listed, ...] | EngineError] = {}
    owners: dict[str, list[str]] = {}
    for name, config in configs.items():
        try:
            picked[name] = mine = config.among(containers)
        except EngineError as error:
            picked[name] = error
            continue
        for one in mine:
            owners.setdefault(one.id, []).append(name)
    for container, names in owners.items():
        if len(names) > 1:
            called = containers.by_id(container)[0].name
            twice = EngineError(f"{' and '.join(names)} both mean container {called}; give each bot its own.")
            picked.update((name, twice) for name in names)
    return picked


def looks_like(one: Listed, group: Sequence[Listed]) -> bool:
    """As far as the list tells: the same image, words and folders, of which at least one can be written to. Two bots of
    one image may share a folder for logs and have their own for the rest."""
    known = [(each.image, each.command, each.lasting) for each in group]
    return bool(one.written) and (one.image, one.command, one.lasting) in known


def recipe(inspected: Any) -> tuple[Any, ...]:
    """What makes two containers the same bot: image, words, folder and variables. Two bots of one script differ in
    these. Raises LookupError, TypeError or ValueError for what is no container."""
    made = inspected["Config"]
    words = [list(made.get(key) or ()) for key in ("Entrypoint", "Cmd")]
    return inspected["Image"], *words, made.get("WorkingDir") or "", sorted(made.get("Env") or ())


def own_pid(unit: Container) -> int | None:
    """Its main process, if that is one of this machine: another machine's pids, or those of the machine outside of
    the container that we run in, are somebody else's here."""
    if not unit.is_here or unit.pid is None:
        return None
    return unit.pid if unit.id in cgroup_of(unit.pid) else None


def _diary(client: Any, container: str, at: datetime) -> list[Any]:
    """What happened to a container around that moment; the engine keeps the last 256 events of everything."""
    since, until = at.timestamp() - 1, min(at.timestamp() + 1, time.time())  # later than now is waited for
    filters = {"container": [container], "event": ["die", "oom"]}
    return list(client.events(since=f"{since:.9f}", until=f"{until:.9f}", filters=filters, decode=True))


def from_diary(events: Sequence[Any], ended: Exit) -> Exit:
    """The exit with its code. Raises LookupError, ValueError or TypeError for what are no events."""
    deaths = [one for one in events if one["Action"] == "die" and _is_at(one, ended)]
    if not deaths:
        return ended
    code, number = code_or_signal(int(deaths[-1]["Actor"]["Attributes"]["exitCode"]))
    return replace(ended, code=code, signal=number, out_of_memory=any(one["Action"] == "oom" for one in events))


def _is_at(event: Any, ended: Exit) -> bool:
    return ended.at is not None and abs(int(event["timeNano"]) / 1e9 - ended.at.timestamp()) < 1.0


# ---------------------------------------------------------------------------------------------------- start


def start(config: BotConfig, seconds: float) -> None:
    """Start the bot's container, by its id. Raises FailedToStartError with the engine's reason; EngineError."""
    used = transport()  # before the clock runs
    address, until = address_of(config), time.monotonic() + seconds
    mine = config.among(list_containers(address, seconds))
    chosen = first_of(mine)
    try:
        with used.talk(address, until - time.monotonic()) as client:
            client.start(chosen.id)
    except used.RefusedError as error:
        if error.status == 404 and "no such container" in error.said.lower():
            raise
        raise FailedToStartError(str(error)) from error


def first_of(mine: Sequence[Listed]) -> Listed:
    """Of several containers of one bot, the one that is the bot; the others are copies."""
    return min(mine, key=order_of)


# ---------------------------------------------------------------------------------------------------- stop


def stop(config: EngineConfig, unit: Unit, grace: float, seconds: float) -> None:
    """The engine asks it to end, kills it after `grace` seconds, and does not start it again. Raises EngineError."""
    used = transport()
    wait = int(max(0.0, min(grace, seconds - STOP_TAKES)))
    ended = threading.Event()
    waker = threading.Thread(target=keep_awake, args=(unit, ended), daemon=True)
    try:
        with used.talk(address_of(config), seconds) as client:
            waker.start()
            client.stop(unit.id, timeout=wait)
    except used.RefusedError as error:
        if error.status != 404:  # removed as it ended (--rm)
            raise
    finally:
        ended.set()
        if waker.is_alive():
            waker.join()


def keep_awake(unit: Unit, ended: threading.Event) -> None:
    """A process that was stopped by a signal hears no SIGTERM until it is woken; the engine does not wake it."""
    while not ended.wait(WOKEN_EVERY):
        proc = read_proc(unit.pid) if unit.pid else None
        if proc is not None and proc.state == "T" and unit.id in cgroup_of(proc.pid):
            with suppress(EngineError):
                signal_all({proc.pid: proc}, signal.SIGCONT)


# ---------------------------------------------------------------------------------------------------- memory

MEMORY_SECONDS = 8.0


def memory_of(config: BotConfig) -> int | None:
    """Bytes that the bot's container may use; None: it has no limit. Raises EngineError."""
    return _with_memory(config, lambda _, seen: seen.host.memory or None)


def set_memory(config: BotConfig, count: int) -> int | None:
    """Give the container a limit of `count` bytes, with as much swap as before on top; it need not run.

    Returns the old limit, None if there was none. Raises EngineError.
    """

    def change(client: Any, seen: Inspected) -> int | None:
        swap = with_swap(count, seen.host.memory, seen.host.memory_and_swap)
        client.update_container(seen.id, mem_limit=count, memswap_limit=swap)
        return seen.host.memory or None

    return _with_memory(config, change)


def with_swap(count: int, memory: int, both: int) -> int:
    """Memory and swap together, as the engine counts them: -1 is no limit."""
    return -1 if both < 0 or (memory and not both) else count + max(0, both - memory) if memory else count * 2


def _with_memory(config: BotConfig, use: Callable[[Any, Inspected], int | None]) -> int | None:
    talk = transport().talk  # before the clock runs
    address, until = address_of(config), time.monotonic() + MEMORY_SECONDS
    chosen = first_of(config.among(list_containers(address, MEMORY_SECONDS)))
    with talk(address, until - time.monotonic()) as client:
        return use(client, Inspected.model_validate(client.inspect_container(chosen.id)))
