"""Health endpoints, real ones on loopback: well-behaved, slow, endless, lying, and somebody else's."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from botkeep.health import look
from botkeep.model import HealthLook
from support.loopback import OK, Answer, Serve, Server, drip, endless, send, servers, url


def ask(address: str, **how: Any) -> HealthLook:
    """`look` with time enough for a busy machine."""
    return look(address, deadline=20, **how)


@pytest.fixture
def serve() -> Iterator[Serve]:
    with servers() as start:
        yield start


# ------------------------------------------------------------------------------------------------------ by status


@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "201", "299 Fine"])
def test_any_2xx_is_healthy(serve: Serve, status: str) -> None:
    seen = ask(url(serve(send(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()))))
    assert (seen.ok, seen.rule, seen.text) == (True, "ok", f"answered {status[:3]}")


@pytest.mark.parametrize("status", ["404 Not Found", "500 Oops", "503 Service Unavailable", "401 Unauthorized"])
def test_an_error_status_is_failing_and_says_what_it_said(serve: Serve, status: str) -> None:
    body = b'{"state": "degraded", "token": "abcdef123"}'
    seen = ask(url(serve(send(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode(), body))))
    assert (seen.ok, seen.rule, seen.certain) == (False, "status", False)
    assert seen.text == f'it answers {status[:3]}: {{"state": "degraded", "token": "[redacted]"}}'


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_a_redirect_is_failing_and_is_not_followed(serve: Serve, code: int) -> None:
    target = serve(send(OK))
    head = f"HTTP/1.1 {code} Moved\r\nLocation: {url(target)}\r\nContent-Length: 0\r\n\r\n"
    seen = ask(url(serve(send(head.encode()))))
    assert (seen.ok, seen.rule) == (False, "redirect")
    assert target.requests == []


def test_the_question_is_plain_and_asks_for_no_compression(serve: Serve) -> None:
    server = serve(send(OK))
    assert ask(url(server, "/health?verbose=1&q=ä")).ok
    (request,) = server.requests
    assert request.startswith(b"GET /health?verbose=1&q=%C3%A4 HTTP/1.1\r\n")
    assert f"Host: 127.0.0.1:{server.port}\r\n".encode() in request
    assert b"Accept-Encoding: identity\r\n" in request
    assert b"gzip" not in request


def test_proxies_of_the_environment_are_not_used(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert ask(url(serve(send(OK)))).ok


def test_an_interim_answer_is_passed_over(serve: Serve) -> None:
    assert ask(url(serve(send(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", OK)))).ok


def test_a_chunked_answer_of_a_server_that_keeps_the_connection_ends_with_its_last_chunk(
    serve: Serve,
) -> None:
    server = serve(send(OK))

    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
        server.over.wait(10)

    server.answer = answer
    assert ask(url(server)).ok


def test_a_server_on_ipv6_is_asked_too(serve: Serve) -> None:
    server = serve(send(OK), family=socket.AF_INET6, host="::1")
    assert ask(f"http://[::1]:{server.port}/").ok


def test_localhost_finds_a_server_that_listens_on_ipv4_only(serve: Serve) -> None:
    assert ask(f"http://localhost:{serve(send(OK)).port}/").ok


# ----------------------------------------------------------------------------------------- slow, endless, garbage


def test_nobody_there_is_refused_but_a_starting_bot_looks_the_same() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    seen = ask(f"http://127.0.0.1:{port}/")
    assert (seen.ok, seen.rule, seen.certain) == (False, "refused", False)
    assert str(port) in seen.text


def _bounded(server: Server, deadline: float = 0.4) -> str:
    began = time.monotonic()
    seen = look(url(server), deadline=deadline)
    assert time.monotonic() - began < deadline + 5
    assert not seen.ok
    assert seen.seconds >= deadline
    return seen.rule


def test_a_server_that_never_answers_runs_out_of_time(serve: Serve) -> None:
    server = serve(send())
    server.answer = drip(server, b"", b"")
    assert _bounded(server) == "timeout"


@pytest.mark.parametrize(
    ("start", "drop"),
    [
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n", b"z"),
        (b"HTTP/1.1 103 Early\r\n\r\n", b"HTTP/1.1 103 Early\r\n\r\n"),
    ],
)
def test_a_dripping_server_does_not_stretch_the_deadline(serve: Serve, start: bytes, drop: bytes) -> None:
    server = serve(send())
    server.answer = drip(server, start, drop)
    rule = ask(url(server)).rule if not start else _bounded(server)
    assert rule == ("timeout" if start else "status")  # one H, two, three: soon that is no HTTP


def test_a_full_backlog_does_not_stretch_the_deadline() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        address = server.getsockname()
        waiting = []
        for _ in range(3):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(address)
            waiting.append(one)
        seen = look(f"http://127.0.0.1:{address[1]}/", deadline=0.3)
        for one in waiting:
            one.close()
    assert (seen.ok, seen.rule) == (False, "timeout")


def test_an_endless_body_is_judged_by_its_status(serve: Serve) -> None:
    assert ask(url(serve(endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 4096)))).ok
    assert ask(url(serve(endless(b"HTTP/1.1 500 No\r\n\r\n", b"x" * 4096)))).rule == "status"


def test_endless_headers_are_too_long(serve: Serve) -> None:
    seen = ask(url(serve(endless(b"HTTP/1.1 200 OK\r\n", b"X-Header: y\r\n" * 100))))
    assert (seen.ok, seen.rule) == (False, "too-long")


@pytest.mark.parametrize(
    "garbage",
    [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"\x00\xff\xfe" * 100, b"HTTP/9.9 200 OK\r\n\r\n", b"HTTP/1.1 999 Odd\r\n\r\n",
     b"HTTP/1.1 2OO OK\r\n\r\n", b"<html>502</html>", b"HTTP/1.1 200", b"\r\n\r\n"],
)  # fmt: skip
def test_what_is_no_http_answer_is_failing(serve: Serve, garbage: bytes) -> None:
    seen = ask(url(serve(send(garbage))))
    assert (seen.ok, seen.rule) == (False, "status")
    assert seen.text.isprintable()


def test_a_server_that_does_not_speak_tls_is_not_asked_in_the_clear(serve: Serve) -> None:
    server = serve(send(OK))
    seen = ask(f"https://127.0.0.1:{server.port}/")
    assert (seen.ok, seen.rule) == (False, "refused")
    assert not any(request.startswith(b"GET") for request in server.requests)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost, signed by itself, with its key in the same file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = [
        openssl,
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command, *names, "-keyout", path, "-out", f"{path}.crt"], check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


def _tls(certificate: Path) -> Answer:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    def answer(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(65536)
            secure.sendall(OK)

    return answer


def test_tls_is_spoken_and_the_certificate_checked(
    serve: Serve, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = serve(_tls(certificate), reads=False).port
    stranger = ask(f"https://localhost:{port}/")
    assert (stranger.ok, stranger.rule) == (False, "refused")
    assert "certificate" in stranger.text
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    assert ask(f"https://localhost:{port}/").ok
    assert ask(f"https://127.0.0.1:{port}/").ok


def test_a_handshake_that_never_ends_does_not_stretch_the_deadline(serve: Serve) -> None:
    server = serve(send(), reads=False)
    server.answer = drip(server, b"\x16\x03\x03\x40\x00", b"\x02")
    seen = look(f"https://127.0.0.1:{server.port}/", deadline=0.4)
    assert (seen.ok, seen.rule) == (False, "timeout")
    assert seen.seconds < 5


# ------------------------------------------------------------------------------------------------- where it may lead


@pytest.mark.parametrize(
    "address",
    ["http://169.254.169.254/latest/meta-data", "http://[::ffff:169.254.169.254]/", "http://0x7f.1/", "http://127.1/",
     "http://2130706433/", "http://0.0.0.0/", "http://10.0.0.1/", "http://[fe80::1%25lo]/", "http://[::]/", "http://1.1.1.1",
     "http://user:password@127.0.0.1/", "http://127.0.0.1\\@1.1.1.1/", "file:///etc/passwd", "ftp://127.0.0.1/", "",
     "http://", "http:///health", "http://127.0.0.1:99999/", "http://[::1/", "gopher://127.0.0.1:70/"],
)  # fmt: skip
def test_only_plain_loopback_addresses_are_asked(address: str) -> None:
    seen = look(address, deadline=1)
    assert (seen.ok, seen.rule) == (False, "not-allowed")
    assert "password" not in seen.text or "etc" in seen.text


def test_a_name_that_does_not_resolve_is_refused() -> None:
    assert look("http://no-such-host.invalid/", deadline=5).rule in ("refused", "timeout")


def test_a_mapped_loopback_address_is_loopback(serve: Serve) -> None:
    assert ask(f"http://[::ffff:127.0.0.1]:{serve(send(OK)).port}/").ok


def test_a_listed_host_is_found_whatever_its_letters(serve: Serve) -> None:
    server = serve(send(OK))
    assert ask(f"http://LOCALHOST:{server.port}/", allowed_hosts={"LocalHost"}).ok


# ------------------------------------------------------------------------------------------------ whose port it is

STRANGER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *args):
        pass
server = http.server.HTTPServer((sys.argv[1], 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


@pytest.fixture(params=["127.0.0.1", "0.0.0.0"])
def stranger(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """(pid, port) of another process that answers 200."""
    with subprocess.Popen(
        [sys.executable, "-I", "-c", STRANGER, request.param], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
        process.kill()


def test_an_answer_of_the_bots_own_process_counts(stranger: tuple[int, int]) -> None:
    pid, port = stranger
    assert ask(f"http://127.0.0.1:{port}/", owner_pids={pid, os.getpid()}).ok


def test_an_answer_of_somebody_elses_process_is_certainly_not_the_bots(stranger: tuple[int, int]) -> None:
    pid, port = stranger
    assert ask(f"http://127.0.0.1:{port}/").ok
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bot:
        seen = ask(f"http://127.0.0.1:{port}/", owner_pids={bot.pid})
        bot.kill()
    assert (seen.ok, seen.rule, seen.certain) == (False, "wrong-owner", True)
    assert seen.text.startswith(f"port {port} belongs to pid {pid} (python")


def test_a_worker_that_the_bot_forked_a_moment_ago_is_the_bots(stranger: tuple[int, int]) -> None:
    assert ask(f"http://127.0.0.1:{stranger[1]}/", owner_pids={os.getpid()}).ok  # it is our child


def test_of_a_bot_that_is_gone_by_now_nothing_is_said(stranger: tuple[int, int]) -> None:
    no_pid = int(Path("/proc/sys/kernel/pid_max").read_text()) + 1
    assert ask(f"http://127.0.0.1:{stranger[1]}/", owner_pids={no_pid}).ok


def test_the_owner_of_an_ipv6_port_is_found(serve: Serve) -> None:
    server = serve(send(OK), family=socket.AF_INET6, host="::1")
    assert ask(f"http://[::1]:{server.port}/", owner_pids={os.getpid()}).ok
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bot:
        seen = ask(f"http://[::1]:{server.port}/", owner_pids={bot.pid})
        bot.kill()
    assert seen.rule == "wrong-owner"


def test_many_bots_are_asked_at_once(serve: Serve) -> None:
    servers = [serve(send(OK)) for _ in range(8)]
    with ThreadPoolExecutor(16) as pool:
        seen = list(pool.map(lambda server: ask(url(server), owner_pids={os.getpid()}), servers * 8))
    assert all(one.ok for one in seen)
