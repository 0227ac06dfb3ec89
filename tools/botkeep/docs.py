"""The tables in SKILL.md, README.md and CONTRIBUTING.md, and one snapshot per tool, from what the code itself says.

A table stands between `<!-- botkeep:NAME -->` and `<!-- /botkeep:NAME -->`; the rest of a file is people's.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .bundle import root as pack_root
from .durable import write_atomic
from .formats import FORMATS
from .later import Later
from .model import UsageError
from .playbooks import load_playbooks
from .profiles import PROFILES
from .results import short
from .runtimes import RUNTIMES
from .workspace import Workspace

if TYPE_CHECKING:
    from mcp.types import Tool

FILES = ("SKILL.md", "README.md", "CONTRIBUTING.md")
BY_HAND = frozenset({"transcript"})
"""What stands between its markers is pasted from a run, not generated."""
SNAPSHOTS = "tests/snapshots/tools"
PACKAGE = Path(__file__).parent
AGAIN = "Run: botkeep docs"

_BLOCK = re.compile(r"<!-- botkeep:([a-z]+) -->\n(.*?)<!-- /botkeep:\1 -->", re.DOTALL)
_MARK = re.compile(r"<!-- /?botkeep:([a-z]+) -->")


def main(*, check: bool, parser: argparse.ArgumentParser) -> int:
    """The `docs` command, in a checkout. Exit code: 1 if `check` found something. Raises UsageError elsewhere."""
    place = pack_root()
    if not (place / "CONTRIBUTING.md").is_file():
        raise UsageError("botkeep docs works in a checkout of botkeep: an installed one has nothing to write.")
    found = problems(place, parser) if check else regenerate(place, parser)
    for line in found:
        print(line if check else f"written {line}")
    return 1 if check and found else 0


def regenerate(root: Path, parser: argparse.ArgumentParser) -> list[str]:
    """Write every table and snapshot that is not as the code has it. Returns the files that were changed."""
    changed = []
    for name, text in _wanted(root, parser).items():
        path = root / name
        if text is None:
            path.unlink()
        elif not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, text.encode(), 0o644)
        else:
            continue
        changed.append(name)
    return changed


def problems(root: Path, parser: argparse.ArgumentParser) -> list[str]:
    """One sentence for each file that is not as the code has it; nothing is written."""
    found = []
    for name, text in _wanted(root, parser).items():
        path = root / name
        if text is None:
            found.append(f"{name}: there is no such tool any more. {AGAIN}")
        elif not path.exists() or path.read_text() != text:
            found.append(f"{name}: {_difference(path, text)} {AGAIN}")
    return found


def _difference(path: Path, text: str) -> str:
    if not path.exists():
        return "it is missing."
    old, new = dict(_BLOCK.findall(path.read_text())), dict(_BLOCK.findall(text))
    stale = [name for name in new if old.get(name) != new[name]]
    return f"not as the code has it: {', '.join(stale) or 'its content'}."


def _wanted(root: Path, parser: argparse.ArgumentParser) -> dict[str, str | None]:
    """File -> what should be in it; None: it should not be there."""
    tools = list_tools()
    made = tables(root, tools, parser)
    texts: dict[str, str | None] = {
        name: fill((root / name).read_text(), made, name) for name in FILES if (root / name).is_file()
    }
    if not (root / "tests").is_dir():
        return texts
    shots = {f"{SNAPSHOTS}/{tool.name}.json": snapshot(tool) for tool in tools}
    stray = {f"{SNAPSHOTS}/{path.name}" for path in (root / SNAPSHOTS).glob("*.json")} - shots.keys()
    return {**texts, **shots, **dict.fromkeys(sorted(stray))}


def fill(text: str, made: Mapping[str, str], name: str) -> str:
    """`text` with every marked table replaced. Raises UsageError for a marker without its pair, or of no table."""

    def replace(block: re.Match[str]) -> str:
        table = block[1]
        if table in BY_HAND:
            return block[0]
        if table not in made:
            raise UsageError(f"{name}: there is no table {table}; the tables are: {', '.join(made)}.")
        return f"<!-- botkeep:{table} -->\n{made[table]}<!-- /botkeep:{table} -->"

    marks, pairs = _MARK.findall(text), [block[1] for block in _BLOCK.finditer(text)]
    alone = [mark for mark in marks if marks.count(mark) != 2 * pairs.count(mark)]
    if alone:
        raise UsageError(f"{name}: the markers of {alone[0]} do not come in pairs of <!-- botkeep:X -->, its end.")
    return _BLOCK.sub(replace, text)


# --- the tables --------------------------------------------------------------------------------------------------


def tables(root: Path, tools: Sequence[Tool], parser: argparse.ArgumentParser) -> dict[str, str]:
    """Every table by name, as Markdown that ends in a line break."""
    return {
        "tools": _table(("tool", "", "what it does"), map(_tool_row, tools)),
        "skills": _table(("skill", "when"), _skill_rows(root)),
        "playbooks": _table(("fault", "severity", "mode", "allows", "back-off"), _playbook_rows(root)),
        "runtimes": _table(("runtime", "what it runs"), _module_rows(RUNTIMES)),
        "formats": _table(("format", "what it reads"), _module_rows(FORMATS)),
        "profiles": _table(("profile", "what it knows"), _module_rows(PROFILES)),
        "commands": _table(("command", "what it does"), _command_rows(parser)),
        "modules": _table(("module", "what it is for"), module_rows(PACKAGE)),
    }


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def _first_sentence(text: str | None) -> str:
    """Of a docstring, without its full stop."""
    paragraph = " ".join((text or "").strip().split("\n\n")[0].split())
    return re.split(r"(?<=[a-z\])`])\. ", paragraph)[0].rstrip(".")


def _module_rows(modules: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, module in modules.items():
        made = module.made if isinstance(module, Later) else module
        about = getattr(made, "engine", made)  # an engine's runtime is the same code for all of them
        yield f"`{name}`", _first_sentence(about.__doc__ if isinstance(about, ModuleType) else type(about).__doc__)


def _skill_rows(root: Path) -> Iterator[tuple[str, str]]:
    import yaml

    for path in sorted(root.glob("skills/*/SKILL.md")):
        _, head, _ = path.read_text().split("---\n", 2)
        yield f"[{path.parent.name}]({path.relative_to(root)})", str(yaml.safe_load(head)["description"])


def _playbook_rows(root: Path) -> Iterator[tuple[str, ...]]:
    books = load_playbooks(Workspace(root))
    if books.problems:
        raise UsageError(books.problems[0])
    for book in books:
        policy, name = book.policy, book.policy.fault.value
        waits = " ".join(map(short, policy.backoff)) if "restart_bot" in policy.actions else ""
        allowed = ", ".join(f"`{action}`" for action in policy.actions) or "nothing but a stop"
        mode = policy.mode if policy.actions else ""
        yield f"[{name}](playbooks/{name}.md)", policy.severity, mode, allowed, waits


def _command_rows(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    (commands,) = (one for one in parser._actions if isinstance(one, argparse._SubParsersAction))  # noqa: SLF001
    about = {one.dest: one.help or "" for one in commands._choices_actions}  # noqa: SLF001 - argparse tells no other way
    for name in commands.choices:
        yield f"`botkeep {name}`", about.get(name, "")


# --- the tools ---------------------------------------------------------------------------------------------------


def list_tools() -> list[Tool]:
    """The tools as a host sees them, from the server itself; no process is started and no workspace opened."""
    import asyncio

    from .server import build

    def no_desk() -> Any:
        raise UsageError("The tools are only listed here, none is called.")

    return asyncio.run(build(no_desk).list_tools())


def _tool_row(tool: Tool) -> tuple[str, str, str]:
    needed = tool.input_schema.get("required", [])
    arguments = (name if name in needed else f"{name}?" for name in tool.input_schema.get("properties", {}))
    return f"`{tool.name}({', '.join(arguments)})`", _mark(tool), _first_sentence(tool.description)


def _mark(tool: Tool) -> str:
    """reads, writes, or `writes, destructive`, as the annotations tell hosts."""
    notes = tool.annotations
    if notes is None or notes.destructive_hint:
        return "writes, destructive"
    return "reads" if notes.read_only_hint else "writes"


def snapshot(tool: Tool) -> str:
    """What a host sees of a tool, as JSON: a change of it is then a line in a diff."""
    seen = tool.model_dump(mode="json", by_alias=True, exclude_none=True)
    return json.dumps(seen, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


# --- the modules -------------------------------------------------------------------------------------------------


def module_rows(package: Path) -> Iterator[tuple[str, str]]:
    """Modules and folders of the package, each after those that it imports, with their docstrings' first sentences."""
    rooms = _rooms(package)
    for name in in_import_order({name: imports_of(files) for name, files in rooms.items()}):
        source = package / name / "__init__.py" if (package / name).is_dir() else package / f"{name}.py"
        shown = f"`{name}/`" if (package / name).is_dir() else f"`{name}.py`"
        yield shown, _first_sentence(ast.get_docstring(_tree(source)))


def _rooms(package: Path) -> dict[str, list[Path]]:
    """Room -> its source files. What only starts the command is no room."""
    files = {path.stem: [path] for path in package.glob("*.py") if not path.stem.startswith("__")}
    folders = {path.parent.name: sorted(path.parent.rglob("*.py")) for path in package.glob("*/__init__.py")}
    return {**files, **folders}


def imports_of(files: Iterable[Path]) -> set[str]:
    """Rooms of botkeep that these files of one room import, now or later; what is for types only does not count."""
    found: set[str] = set()
    for path in files:
        inside = path.parent.name if path.parent != PACKAGE else ""
        for node in _running(_tree(path)):
            found |= _imported(node, inside)
    return found


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those below `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        yield from _running(node)


def _imported(node: ast.AST, inside: str) -> set[str]:
    """`from ..model import x` in a folder, `from .model import x` and `from . import model` beside it."""
    if isinstance(node, ast.Import):
        return {name.name.split(".")[1] for name in node.names if name.name.startswith("botkeep.")}
    if not isinstance(node, ast.ImportFrom):
        return set()
    level = node.level - bool(inside) if node.level else 1 if (node.module or "").split(".")[0] == "botkeep" else -1
    module = (node.module or "").removeprefix("botkeep").lstrip(".")
    if level != 1:
        return set()
    return {module.split(".")[0]} if module else {name.name for name in node.names if not name.name.startswith("__")}


def in_import_order(imports: Mapping[str, set[str]]) -> list[str]:
    """Each after all that it imports, otherwise by name. Raises UsageError naming a circle."""
    placed: list[str] = []
    left = {name: needs & imports.keys() - {name} for name, needs in sorted(imports.items())}
    while left:
        ready = next((name for name, needs in left.items() if needs <= set(placed)), None)
        if ready is None:
            raise UsageError(f"These modules import each other in a circle: {', '.join(left)}.")
        placed.append(ready)
        del left[ready]
    return placed
