"""A small real bot that trades on paper. Copied into a test's folder and run as a program of its own.

Every process of it stamps `monotonic_ns root pid role` into stamps.txt of its folder, so that a test can
say from the bot's own word who lived when. Words without dashes (`3m`) are left alone: they tell two bots apart.
"""

import os
import signal
import subprocess
import sys
import time

PERIOD = 0.02
MOST_MEGABYTES = 400
PR_SET_NAME = 15
SYS_EXIT = {"x86_64": 60, "aarch64": 93}


def main(words: list[str]) -> None:
    """Read the switches, become what they say, trade until the end."""
    switches = dict(word[2:].partition("=")[::2] for word in words if word.startswith("--"))
    bot = Bot()
    for name, value in switches.items():
        getattr(bot, name.replace("-", "_"))(value)
    bot.trade()


class Bot:
    """One process of the bot; `root` is the pid of the first one."""

    def __init__(self) -> None:
        self.role = "bot"
        self.root = os.getpid()
        self.until = float("inf")
        self.code = 0
        self.stamps = os.open("stamps.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.trades: int | None = None
        self.made = 0
        self.pause = PERIOD
        self.held: list[bytearray] = []
        self.lines_each = 0
        self.lines = 0

    # ---------------------------------------------------------------------------------------------- switches

    def as_role(self, role: str) -> None:
        """--as-role=NAME: what to stamp."""
        self.role = role

    def of(self, root: str) -> None:
        """--of=PID: a child of this bot."""
        self.root = int(root)

    def ignore_term(self, _: str) -> None:
        """--ignore-term: only SIGKILL ends it."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def graceful(self, _: str) -> None:
        """--graceful: SIGTERM ends it with exit code 0."""

        def end(*_: object) -> None:
            self.until = 0.0

        signal.signal(signal.SIGTERM, end)

    def exit_after(self, seconds: str) -> None:
        """--exit-after=SECONDS."""
        self.until = time.monotonic() + float(seconds)

    def lives(self, seconds: str) -> None:
        """--lives=SECONDS,SECONDS...: of its first run, its second, ...; the last of all that come then."""
        lengths = seconds.split(",")
        with open("stamps.txt", "rb") as file:
            before = {line.split()[1] for line in file}
        self.exit_after(lengths[min(len(before), len(lengths) - 1)])
        self.stamp()

    def exit_code(self, code: str) -> None:
        """--exit-code=N: with which to end."""
        self.code = int(code)

    def csv(self, path: str) -> None:
        """--csv=PATH: a row for each trade, flushed."""
        self.trades = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if not os.fstat(self.trades).st_size:
            os.write(self.trades, b"id,timestamp,symbol,side,price,amount,fee,pnl\n")

    def workers(self, count: str) -> None:
        """--workers=N: forked, with this very command line."""
        for _ in range(int(count)):
            if os.fork() == 0:
                self.role = "worker"
                return

    def popen(self, _: str) -> None:
        """--popen: a plain child; its descriptors are closed, so that it does not hold the lock."""
        subprocess.Popen([sys.executable, os.path.abspath(__file__), "--as-role=child", f"--of={self.root}"])

    def daemon(self, _: str) -> None:
        """--daemon: a child that leaves session, group and parent."""
        if os.fork() == 0:
            os.setsid()
            if os.fork():
                os._exit(0)
            self.role = "daemon"

    def rename(self, name: str) -> None:
        """--rename=TEXT: another name and command line, and no environment: what setproctitle does."""
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode(), 0, 0, 0)
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        start, end = int(fields[45]), int(fields[48])
        ctypes.memset(start, 0, end - start)
        ctypes.memmove(start, name.encode(), len(name))

    def leader_exits(self, _: str) -> None:
        """--leader-exits: the first thread ends, another goes on trading; the process looks like a zombie."""
        import ctypes
        import threading

        threading.Thread(target=self.trade).start()
        ctypes.CDLL(None).syscall(SYS_EXIT[os.uname().machine], 0)

    def allocate(self, megabytes: str) -> None:
        """--allocate=MB: takes memory until it may have no more."""
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (int(megabytes) << 20, int(megabytes) << 20))
        kept = []
        while True:
            kept.append(bytearray(1 << 20))

    def touch(self, megabytes: str) -> None:
        """--touch=MB: uses that much memory once."""
        bytearray(b"x") * (int(megabytes) << 20)

    def period(self, seconds: str) -> None:
        """--period=SECONDS: between two signs of life."""
        self.pause = float(seconds)

    def turn(self, into: str) -> None:
        """--turn=busy or hungry: what a SIGUSR1 makes of it."""
        ways = {"busy": self.be_busy, "hungry": self.eat}
        signal.signal(signal.SIGUSR1, lambda *_: ways[into]())

    def be_busy(self) -> None:
        """Use the processor, and get nowhere."""
        while True:
            pass

    def eat(self) -> None:
        """Use more memory than any test's limit, and keep it."""
        self.held = [bytearray(b"x") * (1 << 20) for _ in range(MOST_MEGABYTES)]

    def say(self, text: str) -> None:
        """--say=TEXT: one line of output."""
        print(text, flush=True)

    def chatter(self, lines: str) -> None:
        """--chatter=N: N numbered lines of 100 bytes, as fast as it can."""
        for number in range(int(lines)):
            os.write(1, b"%09d %s\n" % (number, b"." * 89))

    def talk(self, lines: str) -> None:
        """--talk=N: N numbered lines of 100 bytes at each stamp."""
        self.lines_each = int(lines)

    def ask_environment(self, path: str) -> None:
        """--ask-environment=PATH: writes down what it was given."""
        with open(path, "wb") as file:
            file.write(b"\0".join(b"%s=%s" % pair for pair in os.environb.items()))

    def signals(self, path: str) -> None:
        """--signals=PATH: writes down what it ignores and blocks."""
        ignored = [n for n in range(1, 32) if n not in (9, 19) and signal.getsignal(n) is signal.SIG_IGN]
        blocked = sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        with open(path, "w") as file:
            file.write(repr([n for n in ignored if n not in (signal.SIGPIPE, signal.SIGXFSZ)] + blocked))

    def health(self, port: str) -> None:
        """--health=PORT: answers on localhost."""
        import threading
        from http.server import BaseHTTPRequestHandler, HTTPServer

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b'{"status": "ok"}')

            def log_message(self, *_: object) -> None:
                return

        server = HTTPServer(("127.0.0.1", int(port)), Answer)
        threading.Thread(target=server.serve_forever, daemon=True).start()

    # ---------------------------------------------------------------------------------------------- life

    def trade(self) -> None:
        """Stamp and trade until the time is over."""
        while time.monotonic() < self.until:
            self.stamp()
            if self.trades is not None:
                self.write_trade()
            for _ in range(self.lines_each):
                self.lines += 1
                os.write(1, b"%09d %s\n" % (self.lines, b"." * 89))
            time.sleep(self.pause)
        sys.exit(self.code)

    def stamp(self) -> None:
        """One line, written at once: with O_APPEND no other process's can tear it."""
        line = f"{time.monotonic_ns()} {self.root} {os.getpid()} {self.role}\n"
        os.write(self.stamps, line.encode())

    def write_trade(self) -> None:
        """One closed paper trade."""
        self.made += 1
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        side = "buy" if self.made % 2 else "sell"
        row = f"{os.getpid()}-{self.made},{now},DOGE/USDT,{side},0.1{self.made % 100:02d},10,0.001,0.05\n"
        os.write(self.trades or 1, row.encode())


if __name__ == "__main__":
    main(sys.argv[1:])
