"""Talking to systemd: `systemctl` and `journalctl`, which speak every version's language; bounded in time and size.

They never ask for a password, page, colour or translate, and names reach them as data.
"""

from __future__ import annotations

import os
import pwd
import re
import selectors
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from botkeep.model import EngineError
from botkeep.untrusted import clean

BYTES = 16 << 20
"""That one answer may have: a thousand units are some 3 MB."""
PIECE = 1 << 16
JOURNALS = ("/var/log/journal", "/run/log/journal")
KEPT = ("PATH", "HOME", "DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR")
USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where a bare environment does not say."""
SETTINGS = {
    "LC_ALL": "C", "TZ": "UTC", "SYSTEMD_COLORS": "0", "SYSTEMD_URLIFY": "0", "SYSTEMD_PAGER": "", "PAGER": "cat",
    "SYSTEMD_EMOJI": "0",
}  # fmt: skip
STAMPS = "--timestamp=us+utc"
"""Microseconds, since 248; before it there are only seconds."""
_NOT_KNOWN = re.compile(rb"unrecognized option|Invalid value|Unknown timestamp", re.IGNORECASE)


@dataclass(frozen=True)
class Manager:
    """One systemd: the machine's, or that of the user who runs botkeep."""

    user: bool = False

    @property
    def option(self) -> str:
        """How both programs are told which one."""
        return "--user" if self.user else "--system"

    def __str__(self) -> str:
        """For sentences."""
        return f"systemd of user {user_name()}" if self.user else "systemd"


@dataclass(frozen=True)
class Answer:
    """What a program said, and how it ended; `code` None: it was ended, having said enough."""

    out: bytes
    err: bytes
    code: int | None

    @property
    def said(self) -> str:
        """Its complaint, as one line."""
        lines = [line for line in self.err.decode("utf-8", "replace").splitlines() if line.strip()]
        return clean(" ".join(lines), 300)


def user_name() -> str:
    """Of whoever runs this."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def environment() -> dict[str, str]:
    """What both programs get: cron's environment has no XDG_RUNTIME_DIR, and then a user's systemd is not found."""
    kept = {name: os.environ[name] for name in KEPT if os.environ.get(name)}
    return {"PATH": USUAL_PATH, "XDG_RUNTIME_DIR": f"/run/user/{os.geteuid()}", **kept, **SETTINGS}


# ---------------------------------------------------------------------------------------------------- asking


def run(words: Sequence[str], seconds: float, most: int = BYTES, *, enough: bool = False) -> Answer:
    """Run a program to its end. Raises EngineError if it is not there, too slow, or says more than `most` bytes.

    `enough`: it may say more, and is ended then.
    """
    try:
        child = subprocess.Popen(
            list(words), env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise EngineError(f"{words[0]} cannot be run: {error.strerror}. Is systemd installed?") from error
    with child:
        try:
            return _answer(child, words[0], time.monotonic() + seconds, most, enough=enough)
        finally:
            if child.poll() is None:
                child.kill()


def _answer(child: subprocess.Popen[bytes], name: str, until: float, most: int, *, enough: bool) -> Answer:
    said: dict[str, bytearray] = {"out": bytearray(), "err": bytearray()}
    for channel, piece in _pieces(child, name, until):
        said[channel] += piece
        if len(said["out"]) + len(said["err"]) > most:
            if not enough:
                raise EngineError(f"{name} does not stop talking: its answer is too long.")
            return Answer(bytes(said["out"][:most]), bytes(said["err"]), None)
    try:
        code = child.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise _late(name) from None
    return Answer(bytes(said["out"]), bytes(said["err"]), code)


def _pieces(child: subprocess.Popen[bytes], name: str, until: float) -> Iterator[tuple[str, bytes]]:
    assert child.stdout is not None  # noqa: S101 - both are pipes
    assert child.stderr is not None  # noqa: S101
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ, "out")
        selector.register(child.stderr, selectors.EVENT_READ, "err")
        while selector.get_map():
            ready = selector.select(max(0.0, until - time.monotonic()))
            if not ready:
                raise _late(name)
            for key, _ in ready:
                piece = os.read(key.fd, PIECE)
                if piece:
                    yield key.data, piece
                else:
                    selector.unregister(key.fileobj)


def _late(name: str) -> LateError:
    return LateError(f"{name} gave no answer in time.")


class LateError(EngineError):
    """The time was over; what was asked for may be done all the same."""


def ctl(manager: Manager, verb: str, *words: str, names: Sequence[str], seconds: float) -> Answer:
    """`systemctl VERB ... -- NAMES`. Raises EngineError if systemd cannot be asked at all; its refusals are answers."""
    options = [manager.option, "--no-pager", "--no-ask-password", *words]
    answer = run(["systemctl", *options, verb, "--", *names], seconds)
    problem = _unreachable(answer, manager) if answer.code else None
    if problem:
        raise EngineError(problem)
    return answer


def show(manager: Manager, properties: Sequence[str], names: Sequence[str], seconds: float) -> str:
    """What systemd has of these units. Raises EngineError."""
    words = [f"--property={','.join(properties)}"]
    if _knows_stamps():
        answer = ctl(manager, "show", *words, STAMPS, names=names, seconds=seconds)
        if not (answer.code and _NOT_KNOWN.search(answer.err)):
            return _shown(answer, manager)
        _stamps.append("unknown")
    return _shown(ctl(manager, "show", *words, names=names, seconds=seconds), manager)


_stamps: list[str] = []


def _knows_stamps() -> bool:
    return not _stamps


def _shown(answer: Answer, manager: Manager) -> str:
    if answer.code and not answer.out.strip():
        raise EngineError(f"{manager} does not say how its units are: {answer.said or f'exit code {answer.code}'}")
    return answer.out.decode("utf-8", "replace")


# ---------------------------------------------------------------------------------------------------- refusals


def _unreachable(answer: Answer, manager: Manager) -> str | None:
    """One sentence, if nobody answered."""
    said = answer.said
    if "not been booted with systemd" in said or "Host is down" in said:
        return "systemd does not run on this machine: its first process is another program."
    found = re.search(r"Failed to (?:connect to|get) (?:system |user scope )?bus[^:]*: (.{1,120})", said)
    if found is None:
        return None
    if manager.user:
        return (
            f"The systemd of user {user_name()} cannot be reached: {found[1]}. It runs while the user is logged in; "
            f"`loginctl enable-linger {user_name()}` keeps it up."
        )
    return f"systemd cannot be reached: {found[1]}"


_DENIED = re.compile(r"Access denied|Interactive authentication required|Permission denied|not authorized", re.I)


def refused(manager: Manager, verb: str, unit: str, answer: Answer) -> EngineError:
    """Why systemd did not do it, and what to do."""
    if _DENIED.search(answer.said):
        return EngineError(
            f"{manager} does not let user {user_name()} {verb} {unit}: {_short(answer.said)} Run botkeep as root, "
            'allow it by a rule of polkit, or make it a unit of the user ("user": true).'
        )
    return EngineError(f"{manager} did not {verb} {unit}: {_short(answer.said) or f'exit code {answer.code}.'}")


def _short(said: str) -> str:
    """Without the advice to read on elsewhere."""
    text = re.sub(r"\s*See (?:system logs|user logs|\"?systemctl|').*", "", said)
    return re.sub(r"^Failed to [a-z-]+ \S+: ", "", text).strip()


@cache
def lingers() -> bool:
    """Whether a user's systemd outlives the last session; root's is the machine's own affair."""
    with suppress(OSError):
        return os.geteuid() == 0 or os.path.exists(f"/var/lib/systemd/linger/{user_name()}")
    return True


def journal(words: Sequence[str], seconds: float, most: int, *, enough: bool = False) -> Answer:
    """`journalctl --output=json ...`. Raises EngineError."""
    answer = run(["journalctl", "--no-pager", "--quiet", "--output=json", *words], seconds, most, enough=enough)
    if answer.code and not answer.out:
        raise EngineError(f"The journal cannot be read: {answer.said or f'exit code {answer.code}'}")
    return answer


def journal_is_open(folders: Sequence[str] = JOURNALS) -> bool:
    """Whether who runs this may read the machine's journal: `journalctl` leaves out what he may not, silently."""
    files = [path for folder in folders for path in Path(folder).glob("*/system.journal")]
    return not files or any(os.access(path, os.R_OK) for path in files)


def fields_of(entry: Mapping[str, object], name: str) -> str:
    """A field of the journal as text; empty if it has none."""
    value = entry.get(name)
    if isinstance(value, list):
        value = value[-1] if value and isinstance(value[-1], str) else ""
    return value if isinstance(value, str) else ""
