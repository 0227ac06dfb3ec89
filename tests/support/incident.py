"""Writes docs/incident.md from a real incident: `incident.py FILE` (`make incident-docs`). Takes about a minute.

A bot's program is saved broken, and the bot dies. The watcher, the alerts and the journal are the real ones; who
receives the alerts is a small server of this machine.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from botkeep.model import Actor
from support.fleet import Fleet, entry, fleet, wait_for
from support.watcher import BOTKEEP, Watcher, watching
from support.webhook import Webhook, webhook

PAGE = """# One incident, from crash to "resolved"

Made by `make incident-docs`, which lets it happen: everything below was said by this version of botkeep, on real
processes. The bot is a paper bot with a `check_interval` of 10 s, the playbooks are those of `botkeep init`. Folders
are shortened; times and pids are as they were.

{body}"""
SECONDS = 60.0
BOT = "doge-short"


class Story:
    """What happened, in order."""

    def __init__(self, bots: Fleet, people: Webhook, watcher: Watcher) -> None:
        self.bots, self.people, self.watcher = bots, people, watcher
        self.parts: list[str] = []
        self._lines = self._messages = 0

    def tell(self, text: str) -> None:
        """A paragraph."""
        self.parts.append(text)

    def show(self, *words: str) -> str:
        """A command and its answer."""
        done = subprocess.run(
            [BOTKEEP, *words], cwd=self.bots.home, capture_output=True, text=True, check=False,
            env={**os.environ, "NO_COLOR": "1", "COLUMNS": "120"},
        )  # fmt: skip
        said = (done.stdout + done.stderr).rstrip()
        self.block("console", f"$ {shlex.join(['botkeep', *words])}\n{said}")
        return said

    def block(self, kind: str, text: str) -> None:
        """As it was said."""
        self.parts.append(f"```{kind}\n{text.rstrip()}\n```")

    def new_lines(self) -> None:
        """What the watcher said since the last time."""
        lines = self.watcher.lines[self._lines :]
        self._lines += len(lines)
        self.block("text", "".join(lines))

    def new_messages(self) -> None:
        """What arrived since the last time."""
        for one in self.people.taken[self._messages :]:
            self.block("text", f"{one['title']}\n\n{one['message']}")
        self._messages = len(self.people.taken)

    def waited(self, condition: Callable[[], object]) -> None:
        """For as long as it takes; then a moment, for what is said of it."""
        try:
            wait_for(condition, SECONDS)
        except AssertionError:
            sys.exit("".join(self.watcher.lines))
        time.sleep(2.5)


def main(page: Path) -> None:
    """Let it happen, and write it down."""
    with tempfile.TemporaryDirectory() as folder, webhook() as people:
        with fleet(Path(folder) / "bots", entry(BOT, check_interval=10), entry("btc", "BTCUSDT")) as bots:
            _set_up(bots, people)
            with watching(bots.home) as watcher:
                story = Story(bots, people, watcher)
                _happen(story)
                watcher.end()
        text = PAGE.format(body="\n\n".join(story.parts))
        text = text.replace(str(Path(folder) / "bots"), "/srv/bots").replace(sys.executable, "python3")
        page.write_text(re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE) + "\n")


def _set_up(bots: Fleet, people: Webhook) -> None:
    rules = bots.home / "config/bots.json"
    rules.write_text(json.dumps({"notify": [people.url], "timezone": "UTC", **json.loads(rules.read_text())}))
    (bots.home / "config/schedule.json").write_text("[]")
    for path in (bots.home / "playbooks").glob("*.md"):
        path.unlink()
    subprocess.run([BOTKEEP, "init", bots.home], check=True, capture_output=True)
    for bot in (BOT, "btc"):
        bots.desk(Actor.PERSON).start(bot, "the day begins")


def _happen(story: Story) -> None:
    bots, people = story.bots, story.people
    program = bots.home / "paper_bot.py"
    good = program.read_text()
    pid = bots.desk().check([BOT]).verdicts[0].pid
    assert pid
    story.tell("## Before\n\nTwo bots run, and `botkeep watch` waits.")
    story.show("status")
    story.tell(
        f"## The crash\n\nSomebody saves `paper_bot.py` with a mistake in it. Nothing happens yet: {BOT} has it in "
        f"memory. Then its process dies (`kill -9 {pid}`). The kernel tells the watcher, which starts it by the "
        f"playbook `bot-not-running`; the new one ends at once."
    )
    program.write_text(good.replace("def main(", "def main((", 1))
    began = time.time()
    os.kill(pid, signal.SIGKILL)
    story.waited(lambda: people.taken)
    took = people.taken and time.time() - began - 2.5
    story.new_lines()
    story.tell(f"## The alert\n\nAs it arrived, {took:.1f} s after the kill:")
    story.new_messages()
    story.tell("Why it died, for whoever is woken by that:")
    story.show("diagnose", BOT)
    program.write_text(good)
    story.tell(
        "## The end\n\nThat line of the log is why the watcher tries no second time: a restart cannot help until "
        "somebody has mended the program. The person does that, and says so."
    )
    story.show("restart", BOT, "--override", "the parenthesis in paper_bot.py is closed")
    story.waited(lambda: any("resolved after" in one["message"] for one in people.taken))
    story.new_lines()
    story.tell("What people got:")
    story.new_messages()
    story.show("status")
    story.tell("## What is left of it\n\nThe journal (`memory/bot-operations.md`), and that it holds:")
    lines = [line for line in bots.journal().splitlines() if line.startswith("- ") and BOT in line]
    story.block("text", "\n".join(lines))
    story.show("journal", "--verify")
    assert len(people.taken) == 2, [one["message"] for one in people.taken]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
