"""Questions over HTTP, put to real servers on loopback. What a health endpoint may do to us is in test_health."""

from __future__ import annotations

import base64
import ipaddress
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from botkeep import web
from botkeep.web import Answer, Credentials, Deadline, Question, WebError, ask, listeners
from support.loopback import OK, Serve, Server, drip, endless, send, servers, url

KEYS = Credentials("freqtrader", 'p:w/"säfe')
TOKEN = base64.b64encode('freqtrader:p:w/"säfe'.encode()).decode()


@pytest.fixture
def serve() -> Iterator[Serve]:
    with servers() as start:
        yield start


def put(server: Server, **how: Any) -> Answer:
    """One question, with time enough for a busy machine."""
    return ask(Question(url(server), **how), Deadline(20))


def refused(server: Server, seconds: float = 20, **how: Any) -> WebError:
    """The error that a question ends in."""
    with pytest.raises(WebError) as caught:
        ask(Question(url(server), **how), Deadline(seconds))
    return caught.value


def answer_of(head: str, body: bytes = b"") -> Any:
    return send(head.encode() + b"\r\n\r\n" + body)


def lines(server: Server) -> list[str]:
    """The head of the one request that it got."""
    (request,) = server.requests
    return request.partition(b"\r\n\r\n")[0].decode().split("\r\n")


# ------------------------------------------------------------------------------------------------------ the question


def test_credentials_are_sent_as_basic_authentication(serve: Serve) -> None:
    server = serve(send(OK))
    assert put(server, credentials=KEYS).status == 200
    assert f"Authorization: Basic {TOKEN}" in lines(server)


def test_without_credentials_none_are_sent(serve: Serve) -> None:
    server = serve(send(OK))
    put(server)
    assert not [line for line in lines(server) if line.startswith(("Authorization", "Content-"))]


def test_an_empty_post_says_that_it_has_no_body(serve: Serve) -> None:
    server = serve(send(OK))
    put(server, method="POST")
    assert lines(server)[0] == "POST /health HTTP/1.1"
    assert "Content-Length: 0" in lines(server)
    assert server.requests[0].endswith(b"\r\n\r\n")


def test_a_post_may_carry_json(serve: Serve) -> None:
    server = serve(send(OK))
    put(server, method="POST", json=b'{"pair": "BTC/USDT"}')
    assert {"Content-Type: application/json", "Content-Length: 20"} <= set(lines(server))
    assert server.requests[0].endswith(b'\r\n\r\n{"pair": "BTC/USDT"}')


# -------------------------------------------------------------------------------------------------------- the answer


@pytest.mark.parametrize("status", [200, 204, 401, 404, 502])
def test_whatever_the_status_is_it_is_the_answer(serve: Serve, status: int) -> None:
    assert put(serve(answer_of(f"HTTP/1.1 {status} So\r\nContent-Length: 0"))).status == status


def test_a_redirect_is_no_answer_and_is_not_followed(serve: Serve) -> None:
    target = serve(send(OK))
    asked = serve(answer_of(f"HTTP/1.1 307 There\r\nLocation: {url(target)}\r\nContent-Length: 0"))
    assert refused(asked, credentials=KEYS).rule == "redirect"
    assert target.requests == []


@pytest.mark.parametrize(
    ("header", "kind"),
    [("Content-Type: application/json", "application/json"), ("content-type:  Text/HTML; charset=utf-8", "text/html"),
     ("X-Type: text/html", ""), ("Content-Type: \x01", "")],
)  # fmt: skip
def test_the_type_of_its_content_is_without_parameters(serve: Serve, header: str, kind: str) -> None:
    assert put(serve(answer_of(f"HTTP/1.1 200 OK\r\n{header}\r\nContent-Length: 0"))).content_type == kind


def test_a_body_comes_whole(serve: Serve) -> None:
    answer = put(serve(answer_of("HTTP/1.1 200 OK\r\nContent-Length: 100000", b"ab" * 50000)), limit=100000)
    assert (answer.body, answer.missing) == (b"ab" * 50000, "")


def test_a_body_without_a_length_ends_with_the_connection(serve: Serve) -> None:
    answer = put(serve(answer_of("HTTP/1.0 200 OK", b"whole")), limit=5)
    assert (answer.body, answer.missing) == (b"whole", "")


@pytest.mark.parametrize("head", ["HTTP/1.1 200 OK", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999"])
def test_of_an_endless_body_only_so_much_is_read(serve: Serve, head: str) -> None:
    answer = put(serve(endless(head.encode() + b"\r\n\r\n", b"x" * 65536)), limit=1000)
    assert (answer.body, answer.missing) == (b"x" * 1000, "too-long")


def test_a_body_that_is_shorter_than_it_says_is_broken(serve: Serve) -> None:
    answer = put(serve(answer_of("HTTP/1.1 200 OK\r\nContent-Length: 9", b"half")))
    assert (answer.body, answer.missing) == (b"half", "broken")


CHUNKED = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("sent", "body", "missing"),
    [
        (b"4\r\nabcd\r\n2\r\nef\r\n0\r\n\r\n", b"abcdef", ""),
        (b"4;name=value\r\nabcd\r\n0\r\nTrailer: x\r\n\r\n", b"abcd", ""),
        (b"A\r\n0123456789\r\n0\r\n\r\n", b"01234567", "too-long"),
        (b"fffffff\r\n" + b"z" * 100, b"zzzzzzzz", "too-long"),
        (b"4\r\nabcd\r\n", b"abcd", "broken"),
        (b"4\r\nab", b"ab", "broken"),
        (b"4\r\nabcdXY\r\n0\r\n\r\n", b"abcd", "broken"),
        (b"-4\r\nabcd\r\n0\r\n\r\n", b"", "broken"),
        (b"1" * 5000, b"", "broken"),
    ],
)
def test_a_chunked_body_is_put_together(serve: Serve, sent: bytes, body: bytes, missing: str) -> None:
    answer = put(serve(answer_of(CHUNKED, sent)), limit=8)
    assert (answer.body, answer.missing) == (body, missing)


def test_chunks_that_drip_do_not_stretch_the_deadline(serve: Serve) -> None:
    server = serve(send())
    server.answer = drip(server, CHUNKED.encode() + b"\r\n\r\n", b"1\r\nx\r\n")
    began = time.monotonic()
    assert refused(server, 0.4).rule == "timeout"
    assert time.monotonic() - began < 5


def test_one_deadline_holds_for_several_questions(serve: Serve) -> None:
    quick, mute = serve(send(OK)), serve(send())
    mute.answer = drip(mute, b"", b"")
    clock = Deadline(0.5)
    assert ask(Question(url(quick)), clock).status == 200
    with pytest.raises(WebError, match=r"within 0\.5 s"):
        ask(Question(url(mute)), clock)
    began = time.monotonic()
    with pytest.raises(WebError) as caught:
        ask(Question(url(quick)), clock)
    assert caught.value.rule == "timeout"
    assert time.monotonic() - began < 0.4


# -------------------------------------------------------------------------------------------------------- credentials


def test_credentials_are_in_no_text_that_anybody_sees(serve: Serve) -> None:
    echo = f"Basic {TOKEN} {KEYS.password} p%3Aw%2F%22s%C3%A4fe"
    answer = put(serve(answer_of("HTTP/1.1 500 Oops", echo.encode())), credentials=KEYS)
    question = Question("http://127.0.0.1/", credentials=KEYS)
    for text in (answer.said(), repr(answer), repr(question), str(KEYS), f"{[KEYS]}"):
        assert "w/" not in text
        assert TOKEN not in text
        assert "fe" not in text.replace("freqtrader", "")
    assert answer.said() == "Basic [redacted] [redacted] [redacted]"


def test_what_is_no_http_is_not_quoted_after_credentials_were_sent(serve: Serve) -> None:
    server = serve(send(f"you sent {TOKEN[:20]}".encode()))
    assert str(refused(server, credentials=KEYS)) == "what it answers is not HTTP."
    assert "you sent" in str(refused(server))


def test_somebody_elses_process_never_gets_the_credentials(serve: Serve) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bot:
        server = serve(send(OK))
        failure = refused(server, credentials=KEYS, owner_pids=frozenset({bot.pid}))
        bot.kill()
    assert (failure.rule, failure.certain, failure.pid) == ("wrong-owner", True, os.getpid())
    assert b"".join(server.requests) == b""


# ---------------------------------------------------------------------------------------------------- where it may lead


def _target(host: str) -> web._Target:
    return web._Target("http", host, 80, "/", host)


def test_a_listed_host_may_be_elsewhere_but_not_where_clouds_keep_credentials() -> None:
    """What a name resolves to is checked, and that very address is connected to: rebinding changes nothing."""
    lan, cloud = ipaddress.ip_address("192.168.1.7"), ipaddress.ip_address("169.254.169.254")
    listed = frozenset({"nas.local"})
    assert web._checked(_target("nas.local"), [lan], listed) == [lan]
    assert web._checked(_target("nas.local"), [cloud, lan], listed) == [lan]
    for host, addresses in (("nas.local", [cloud]), ("other.local", [lan]), ("localhost", [lan, cloud])):
        with pytest.raises(WebError, match="allowed_hosts"):
            web._checked(_target(host), addresses, listed)


# ----------------------------------------------------------------------------------------------------- whose port it is

LISTENER = """
import socket, sys, time
with open("/proc/self/comm", "wb") as comm:
    comm.write(bytes([0xff, 0xfe]) + b"bot")
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
while True:
    server.accept()[0].close()
"""


@pytest.fixture
def listener() -> Iterator[tuple[int, int]]:
    """(pid, port) of another process, which calls itself by bytes that are no UTF-8."""
    with subprocess.Popen([sys.executable, "-I", "-c", LISTENER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
        process.kill()


def test_a_stranger_whose_name_is_no_text_is_still_named(listener: tuple[int, int]) -> None:
    pid, port = listener
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bot:
        with pytest.raises(WebError) as caught:
            ask(Question(f"http://127.0.0.1:{port}/", owner_pids=frozenset({bot.pid})), Deadline(20))
        bot.kill()
    assert (caught.value.rule, caught.value.pid) == ("wrong-owner", pid)
    assert "bot" in str(caught.value)


def test_who_listens_is_found_without_a_question(listener: tuple[int, int], serve: Serve) -> None:
    pid, port = listener
    for host in ("127.0.0.1", "localhost"):
        assert listeners(f"http://{host}:{port}/api") == (pid,)
    server = serve(send(OK))
    assert listeners(url(server)) == (os.getpid(),)
    assert server.requests == []


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/", "http://192.0.2.1:80/", "http://example.org/", "nonsense"])
def test_nobody_of_this_machine_listens_elsewhere(address: str) -> None:
    assert listeners(address) == ()


def test_whose_port_it_is_cannot_be_said_of_a_bot_in_a_network_of_its_own(serve: Serve) -> None:
    """A container's published port is held by the engine's forwarder, which is not the bot and answers for it."""
    unshare = shutil.which("unshare")
    flags = next((one for one in ("-n", "-Urn") if unshare and _may([unshare, one])), None)
    if unshare is None or flags is None:
        assert not os.environ.get("CI"), "CI must allow network namespaces"
        pytest.skip("this machine lets us make no network namespace (unshare)")
    command = [unshare, flags, sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as bot:
        assert bot.stdout is not None
        bot.stdout.readline()
        assert put(serve(send(OK)), owner_pids=frozenset({bot.pid})).status == 200
        bot.kill()


def _may(command: list[str]) -> bool:
    return subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0


def test_a_server_on_ipv6_loopback_is_found_by_its_name(serve: Serve) -> None:
    server = serve(send(OK), family=socket.AF_INET6, host="::1")
    assert listeners(f"http://localhost:{server.port}/") == (os.getpid(),)
