"""The wheel, built from the sdist, used where no source is: `init`, a check, one round, the server's tool list.

Run by `make test`. Exits 1 with what went wrong.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLAYBOOKS = 13
SKILLS = {"keep-bots-alive", "report-bots", "restore-bot-data", "set-up-bots"}


def run(*command: str | Path, cwd: Path, code: int = 0) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "BOTKEEP"))}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != code:
        sys.exit(f"{' '.join(map(str, command))}: exit {done.returncode}, wanted {code}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def build(scratch: Path) -> Path:
    """The wheel of what git tracks: built from the sdist in a copy of the source, which is deleted afterwards."""
    source = scratch / "source"
    source.mkdir()
    names = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name)
    (source / "skills" / ".env").write_text("EXCHANGE_KEY=must-not-be-shipped\n")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", scratch / "dist", cwd=source)
    shutil.rmtree(source)
    return next((scratch / "dist").glob("*.whl"))


def check_contents(wheel: Path) -> None:
    """The pack is inside, whole, and nothing that does not belong there."""
    names = set(zipfile.ZipFile(wheel).namelist())
    bundle = {name.removeprefix("botkeep/bundle/") for name in names if name.startswith("botkeep/bundle/")}
    playbooks = {name for name in bundle if name.startswith("playbooks/")}
    skills = {name.split("/")[1] for name in bundle if name.startswith("skills/")}
    rest = bundle - playbooks - {name for name in bundle if name.startswith("skills/")}
    assert len(playbooks) == PLAYBOOKS, sorted(playbooks)
    assert skills == SKILLS, sorted(skills)
    assert rest == {"SKILL.md", "memory/bot-operations.md"}, sorted(rest)
    assert "botkeep/py.typed" in names
    assert not [name for name in names if ".env" in name or "__pycache__" in name], sorted(names)


def use(wheel: Path, scratch: Path) -> None:
    """Install it with the pinned dependencies and nothing else, and do the first things a user does."""
    place = scratch / "venv"
    run(sys.executable, "-m", "venv", place, cwd=scratch)
    pip = (place / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, "--require-hashes", "-r", ROOT / "requirements.txt", cwd=scratch)
    run(*pip, "--no-deps", wheel, cwd=scratch)
    botkeep = place / "bin/botkeep"
    home = scratch / "botkeep"
    run(botkeep, "init", home, cwd=scratch)
    (home / "config/bots.json").write_text(
        json.dumps(
            {
                "bots": [
                    {
                        "name": "sleeper",
                        "process_name": "sleeper",
                        "runtime": {"kind": "process", "command": ["bash", "sleeper.sh"], "stop_grace": 2},
                    }
                ]
            }
        )
    )
    (home / "sleeper.sh").write_text("sleep 1000 & wait\n")
    try:
        done = json.loads(run(botkeep, "round", "--json", "--home", home, cwd=scratch))
        assert [one["status"] for one in done["bots"]] == ["healthy"], done
        run(botkeep, "check", "--home", home, cwd=scratch)
    finally:
        run(botkeep, "stop", "sleeper", "--home", home, cwd=scratch)
    assert "sleeper was started" in (home / "memory/bot-operations.md").read_text()
    run(botkeep, "journal", "--verify", "--home", home, cwd=scratch)


def main() -> None:
    """Build, look inside, use."""
    with tempfile.TemporaryDirectory(prefix="botkeep-wheel-") as name:
        scratch = Path(name)
        wheel = build(scratch)
        check_contents(wheel)
        use(wheel, scratch)
    print(f"{wheel.name}: built from the sdist, used without the source: init, round, check, stop, journal --verify")


if __name__ == "__main__":
    main()
