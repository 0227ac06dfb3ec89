"""The tests' own Docker engine: started once per test run, shared by its workers, ended with the last of them.

A daemon with its own socket and data, which leaves the machine's network alone. Somebody's running Docker
($DOCKER_HOST) is used instead where there is one. No registry is asked: images are made by import, of busybox and of
the running interpreter with the libraries that `ldd` lists.

Who uses it holds a shared lock on a file; a keeper waits for the exclusive one, and so notices the last one's end,
however that came about.
"""

from __future__ import annotations

import ctypes
import fcntl
import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

READY_SECONDS = 60.0
PYTHON = "botkeep-test-python:1"
BUSYBOX = "botkeep-test-busybox:1"
MODULES = "ctypes fcntl http.server json resource signal socket subprocess threading time encodings.idna"
"""What the tests' bots import."""
PR_SET_PDEATHSIG = 1


@cache
def engine_host() -> str:
    """The engine's address, once it answers and has the images. Skips the test where no engine can be had."""
    mine = os.environ.get("DOCKER_HOST", "")
    if not mine:
        if os.geteuid() != 0:
            pytest.skip("a Docker engine of the tests' own needs root; or name one in $DOCKER_HOST")
        if shutil.which("dockerd") is None:
            pytest.skip("no Docker engine: dockerd is not installed, and $DOCKER_HOST names none")
    place = _place()
    _held.append(_shared_lock(place))
    with open(f"{place}.start", "w") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        said = place / "ready"
        if not said.exists():
            place.mkdir(mode=0o700, exist_ok=True)
            launcher = [sys.executable, __file__, str(place), mine]
            subprocess.run(launcher, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            _wait_until(said.exists)
        found: dict[str, str] = json.loads(said.read_text())
    assert "host" in found, found
    return found["host"]


def _place() -> Path:
    return Path(f"/tmp/botkeep-docker-{os.environ.get('PYTEST_XDIST_TESTRUNUID') or os.getpid()}")


_held: list[Any] = []
"""Open as long as this process lives."""


def _shared_lock(place: Path) -> Any:
    file = open(f"{place}.lock", "w")  # noqa: SIM115 - until this process ends
    fcntl.flock(file, fcntl.LOCK_SH)
    return file


def _wait_until(condition: Any) -> None:
    until = time.monotonic() + READY_SECONDS
    while not condition():
        assert time.monotonic() < until, "the engine was not ready in time"
        time.sleep(0.05)


@cache
def client() -> Any:
    """The SDK's own client, for what a person does to containers."""
    import docker

    return docker.APIClient(base_url=engine_host(), version="auto", timeout=60)


@cache
def manager_host() -> str:
    """The engine's address, once it is a manager of a swarm: ours is made one, somebody's is left as it is."""
    host, asked = engine_host(), client()
    with open(f"{_place()}.start", "w") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        if not asked.info()["Swarm"].get("ControlAvailable"):
            if os.environ.get("DOCKER_HOST"):
                pytest.skip("the engine that $DOCKER_HOST names is no manager of a swarm")
            address = _address_of_its_own()
            asked.init_swarm(advertise_addr=address, listen_addr=f"{address}:2377")
    return host


def _address_of_its_own() -> str:
    """Of the loopback network: several test runs on one machine have a swarm each, all on the same ports."""
    number = zlib.crc32(str(_place()).encode())
    return f"127.{1 + number % 254}.{1 + number // 254 % 254}.{1 + number // 254**2 % 254}"


def interpreter() -> str:
    """Where Python is in its image."""
    return os.path.realpath(sys.executable)


# ---------------------------------------------------------------------------------------------------- the keeper


def keep(place: Path, host: str) -> None:
    """Start the engine, make the images, say so, wait until nobody needs it any more, end it."""
    daemon = None if host else _start_daemon(place)
    try:
        if daemon is not None:
            host = f"unix://{place}/docker.sock"
            _wait_until(lambda: daemon.poll() is not None or _answers(host))
            assert daemon.poll() is None, (place / "dockerd.log").read_text()[-2000:]
        _make_images(host)
        said = {"host": host}
    except Exception as error:  # noqa: BLE001 - whatever it is, the tests that wait have to be told
        said = {"error": repr(error)}
    (place / "ready.new").write_text(json.dumps(said))
    (place / "ready.new").rename(place / "ready")
    with open(f"{place}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if daemon is not None:
            daemon.terminate()
            daemon.wait()
            _unmount(place)
        shutil.rmtree(place, ignore_errors=True)
        Path(f"{place}.start").unlink(missing_ok=True)
        Path(f"{place}.lock").unlink(missing_ok=True)


def _unmount(place: Path) -> None:
    """What the daemon leaves mounted when it ends: its network namespaces."""
    mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for one in reversed([path for path in mounted if path.startswith(f"{place}/")]):
        subprocess.run(["umount", "--lazy", one], check=False, capture_output=True)


def _start_daemon(place: Path) -> subprocess.Popen[bytes]:
    folders = {"data-root": "data", "exec-root": "exec", "pidfile": "pid"}
    options = [f"--{name}={place}/{folder}" for name, folder in folders.items()]
    quiet = ["--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs"]
    with open(place / "dockerd.log", "wb") as log:
        return subprocess.Popen(
            ["dockerd", f"--host=unix://{place}/docker.sock", *options, *quiet],
            stdout=log,
            stderr=log,
            preexec_fn=_end_with_keeper,  # this process has one thread
        )


def _end_with_keeper() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _answers(host: str) -> bool:
    import docker
    import docker.errors

    try:
        with docker.APIClient(base_url=host, version="auto", timeout=5) as asked:
            return bool(asked.ping())
    except docker.errors.DockerException:
        return False


def _make_images(host: str) -> None:
    import docker

    with docker.APIClient(base_url=host, version="auto", timeout=60) as engine:
        for name, files in ((BUSYBOX, _busybox()), (PYTHON, _python())):
            repository, _, tag = name.partition(":")
            engine.import_image_from_data(_tar(files), repository=repository, tag=tag)


def root_files() -> bytes:
    """A root file system with both."""
    return _tar(itertools.chain(_busybox(), _python()))


def _tar(files: Iterator[tuple[str, str]]) -> bytes:
    """(path inside, path here or link target)."""
    data, seen = io.BytesIO(), set()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for inside, source in files:
            if inside in seen:
                continue
            seen.add(inside)
            if source.startswith("->"):
                link = tarfile.TarInfo(inside.lstrip("/"))
                link.type, link.linkname = tarfile.SYMTYPE, source[2:]
                tar.addfile(link)
            else:
                tar.add(os.path.realpath(source), inside.lstrip("/"), recursive=False)
        for folder in ("tmp", "proc", "sys", "dev", "etc"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o777
            tar.addfile(entry)
    return data.getvalue()


def _busybox() -> Iterator[tuple[str, str]]:
    program = shutil.which("busybox")
    assert program, "busybox is not installed (busybox-static)"
    yield "/bin/busybox", program
    for name in ("sh", "sleep", "cat", "echo", "true", "false", "printf", "kill", "seq", "yes", "head"):
        yield f"/bin/{name}", "->busybox"


def _python() -> Iterator[tuple[str, str]]:
    """The interpreter, the modules that bots import, and what both are linked with."""
    program = interpreter()
    script = f"import sys, {', '.join(MODULES.split())}\n" + (
        "for m in list(sys.modules.values()):\n"
        "    for name in ('__file__', '__cached__'):\n"
        "        path = getattr(m, name, None)\n"
        "        print(path) if path else None\n"
    )
    said = subprocess.run([program, "-I", "-c", script], check=True, capture_output=True, text=True).stdout
    files = [path for path in said.split("\n") if path.startswith("/") and os.path.isfile(path)]
    linked = [program, *(path for path in files if path.endswith(".so") or ".so." in path)]
    for path in (program, *files, *_libraries(linked)):
        yield path, path


def _libraries(programs: list[str]) -> Iterator[str]:
    for program in programs:
        said = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
        for word in said.split():
            if word.startswith("/"):
                yield word


if __name__ == "__main__":
    if os.fork() == 0:
        os.setsid()
        keep(Path(sys.argv[1]), sys.argv[2])
    os._exit(0)
