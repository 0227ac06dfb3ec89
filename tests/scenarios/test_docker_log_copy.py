"""A container's output is copied without a lock and without a question where its driver's own file did not change: and
no line is lost or doubled by that, whatever happens to that file, to the copy, or to the container."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from botkeep.durable import Lock
from botkeep.runtimes import Target, docker_transport, enginelog
from support.bots import Lab, wait_for
from support.docker_engine import BUSYBOX
from support.docker_proxy import Proxy
from support.docker_rig import Containers
from support.engine_bot import look, runtime, start, stop

SPEAKER = 'exec 3< words; while true; do while read -r line <&3; do echo "$line"; done; sleep 0.02; done'
"""Says what is written into its file, a line each."""


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Containers]:
    with Lab(tmp_path) as lab:
        containers = Containers(lab)
        yield containers
        containers.close()
    docker_transport.hang_up()


def speaker(made: Containers, **options: str) -> Target:
    """A bot that says what it is told to; `options` of its log driver."""
    (made.lab.home / "words").write_text("")
    log = {"Type": "json-file", "Config": options}
    target = made.docker_bot(command=["sh", "-c", SPEAKER], image=BUSYBOX, host={"log_config": log})
    start(target)
    return target


def tell(made: Containers, line: str) -> None:
    with (made.lab.home / "words").open("a") as words:
        words.write(f"{line}\n")


def say(made: Containers, *lines: str) -> None:
    """Each of them, one after the other."""
    for line in lines:
        tell(made, line)
        wait_for(lambda text=line: text.encode() in drivers_file(made).read_bytes())  # type: ignore[misc]


def drivers_file(made: Containers) -> Path:
    return Path(made.inspect(f"{made.prefix}-doge")["LogPath"])


def heard(target: Target) -> bytes:
    look(target)
    path = runtime(target).log(target)
    return path.read_bytes() if path and path.exists() else b""


def settled(target: Target) -> bytes:
    """Read until nothing is to be done, so that the next look takes the short way."""
    before = b"-"
    while (now := heard(target)) != before:
        before = now
    (unit,) = runtime(target).known[target.name]
    assert enginelog._is_up_to_date(runtime(target).engine, target, unit)
    return now


def test_of_a_container_that_said_nothing_since_no_lock_is_taken_and_nothing_is_written(
    made: Containers, tmp_path: Path
) -> None:
    target = speaker(made)
    say(made, "one")
    assert settled(target) == b"one\n"
    before = {path.name: path.stat().st_mtime_ns for path in target.run_dir.iterdir()}
    with Lock(target.run_dir / enginelog.LOCK) as theirs:
        assert theirs.acquire()
        assert heard(target) == b"one\n"
        say(made, "two")
        assert heard(target) == b"one\n", "what is new is read by whoever has the lock"
    assert {path.name: path.stat().st_mtime_ns for path in target.run_dir.iterdir()} == before
    assert heard(target) == b"one\ntwo\n"
    config = target.config.model_copy(update={"host": f"unix://{tmp_path}/p.sock"})
    with Proxy.at(made.host, tmp_path / "p.sock") as proxy:
        assert heard(Target(**{**vars(target), "config": config})) == b"one\ntwo\n"
        assert [path for path in proxy.asked if path.endswith("/logs")] == []


def test_one_that_has_never_said_anything_is_as_cheap(made: Containers) -> None:
    target = speaker(made)
    assert settled(target) == b""
    say(made, "at last")
    assert heard(target) == b"at last\n"


def emptied(path: Path, line: Callable[[str], None]) -> None:
    """As the driver does that keeps one file, or a person with `truncate -s 0`."""
    os.truncate(path, 0)
    line("b" * 40)


def longer(path: Path, line: Callable[[str], None]) -> None:
    os.truncate(path, 0)
    line("b" * 30)
    line("c" * 90)


@pytest.mark.parametrize("change", [emptied, longer], ids=["the same size", "longer"])
def test_a_file_that_was_emptied_in_place_is_read_from_its_beginning_whatever_its_size_is_by_then(
    made: Containers, change: Callable[[Path, Callable[[str], None]], None]
) -> None:
    target = speaker(made)
    say(made, "a" * 40)
    assert settled(target) == b"a" * 40 + b"\n"
    path = drivers_file(made)
    size = path.stat().st_size
    change(path, lambda text: say(made, text))
    grown = path.stat().st_size
    assert grown == size if change is emptied else grown > size
    more = b"b" * 40 + b"\n" if change is emptied else b"b" * 30 + b"\n" + b"c" * 90 + b"\n"
    assert heard(target) == b"a" * 40 + b"\n" + more
    assert settled(target) == b"a" * 40 + b"\n" + more


@pytest.mark.parametrize("kept", ["1", "2", "3"], ids=["one file", "two files", "three files"])
def test_over_every_rotation_each_line_is_copied_once(made: Containers, kept: str) -> None:
    """A size that a few lines fill, and a look after each of them."""
    target = speaker(made, **{"max-size": "1k", "max-file": kept})
    said = b""
    inodes = set()
    for number in range(40):
        line = f"{number:06d} {'.' * 50}"
        tell(made, line)
        wait_for(lambda text=line: text.encode() in made.client.logs(target.config.container, tail=5))  # type: ignore[misc]
        said += f"{line}\n".encode()
        inodes.add(drivers_file(made).stat().st_ino)
        assert heard(target) == said
        assert heard(target) == said
    assert kept == "1" or len(inodes) > 1, "it was never turned over"


def test_what_was_turned_over_twice_since_the_last_look_comes_from_the_engine(made: Containers) -> None:
    target = speaker(made, **{"max-size": "1k", "max-file": "5"})
    said = [f"{number:06d} {'.' * 50}" for number in range(30)]
    say(made, said[0])
    assert settled(target) == f"{said[0]}\n".encode()
    for line in said[1:]:
        tell(made, line)
        wait_for(lambda text=line: text.encode() in made.client.logs(target.config.container, tail=5))  # type: ignore[misc]
    everything = "".join(f"{line}\n" for line in said).encode()
    assert heard(target) == everything
    assert heard(target) == everything


def test_a_copy_that_somebody_emptied_or_removed_gets_what_is_new_and_nothing_twice(made: Containers) -> None:
    target = speaker(made)
    say(made, "one")
    assert settled(target) == b"one\n"
    os.truncate(target.log_path, 0)
    assert heard(target) == b""
    say(made, "two")
    assert settled(target) == b"two\n"
    target.log_path.unlink()
    assert heard(target) == b""
    say(made, "three")
    assert settled(target) == b"three\n"


def test_a_container_that_is_made_anew_or_started_anew_is_read_from_its_beginning(made: Containers) -> None:
    target = speaker(made)
    say(made, "first")
    assert settled(target) == b"first\n"
    assert stop(target).left == ()
    (made.lab.home / "words").write_text("")
    start(target)
    say(made, "second")
    assert settled(target) == b"first\nsecond\n"
    assert target.log_path.read_bytes()[runtime(target).run_offset(target) :] == b"second\n"
    fresh = speaker(made)
    say(made, "third")
    assert settled(fresh) == b"first\nsecond\nthird\n"
    assert fresh.log_path.read_bytes()[runtime(fresh).run_offset(fresh) :] == b"third\n"


def test_what_a_killed_reader_had_added_is_not_passed_over(made: Containers) -> None:
    """The mark that he left is seen to by the next look, though the container said nothing since."""
    target = speaker(made)
    say(made, "one")
    assert settled(target) == b"one\n"
    mark = target.run_dir / enginelog.MARK
    mark.write_text(json.dumps({"inode": target.log_path.stat().st_ino, "size": 0, "from": 0, "count": 4}))
    assert heard(target) == b"one\n"
    assert not mark.exists()


def test_looks_side_by_side_while_it_speaks_copy_each_line_once(made: Containers) -> None:
    target = speaker(made)
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            heard(target)

    readers: list[Any] = [threading.Thread(target=read) for _ in range(3)]
    for one in readers:
        one.start()
    said = [f"{number:04d}" for number in range(60)]
    try:
        say(made, *said)
    finally:
        over.set()
        for one in readers:
            one.join()
    assert heard(target) == "".join(f"{line}\n" for line in said).encode()
