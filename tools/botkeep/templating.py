"""Templates that people may edit: what theirs may do, for how long, and what is used where one is broken.

`botkeep init` puts a copy of each into `templates/` of the workspace; an edited one is used instead of the packaged
one. It is a person's, but a slip in it must neither hang a round nor cost anybody the report, so it is rendered in a
process of its own: Jinja's sandbox, plain data only (texts, numbers, lists), five seconds, half a gigabyte, and an end
to what it may write. A single C call in a template (`10 ** 10 ** 10`) never comes back to a check in the same process;
the kernel ends a process whatever it does.
"""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from .durable import read_regular
from .untrusted import clean, escape_markdown

if TYPE_CHECKING:
    from jinja2 import Environment

PACKAGED = Path(__file__).with_name("templates")
OWN = "templates"
"""The folder in the workspace."""
SECONDS = 5
GRACE = 5.0
"""Seconds more for the process to start and to end itself; then it is killed."""
MEMORY = 512 << 20
MAX_SOURCE = 256 << 10
MAX_OUTPUT = 16 << 20
"""Characters."""
MAX_SENTENCE = 400

Context = Mapping[str, Any]
"""Texts, numbers, truth values, None, and lists and objects of them."""


@dataclass(frozen=True)
class Rendered:
    """The text, and what is wrong with the workspace's own template; empty: nothing, or there is none."""

    text: str
    problem: str = ""


class _BrokenError(Exception):
    """What is wrong with a person's template, and in which line."""

    def __init__(self, why: str, line: int | None = None) -> None:
        super().__init__(why)
        self.line = line


def render(
    name: str,
    contexts: Sequence[Context],
    *,
    home: Path | None = None,
    limit: int | None = None,
    pictures: Mapping[str, str] | None = None,
    markdown: bool = True,
) -> Rendered:
    """The first of these contexts whose text has at most `limit` UTF-16 units (as Telegram counts), else the last one.

    `contexts`: the fullest first; whatever people, bots and logs wrote in them is cleaned here, and escaped as `name`
    wants it: `.html.j2` as HTML, others as Markdown, or not at all where no `markdown` works. `home`: the workspace,
    whose own template is tried first; what is wrong with that one is added to `problems` of the context, and is in
    the result. `pictures`: SVG of our own, for the filter `picture`; only that is put into HTML as it is. Never raises
    for a person's template.
    """
    shown = [_cleaned(one) for one in contexts]
    job = {"name": name, "contexts": shown, "limit": limit, "pictures": dict(pictures or {}), "markdown": markdown}
    try:
        source = _own_source(home, name)
        if source is not None:
            return Rendered(_own({**job, "source": source}))
    except _BrokenError as error:
        problem = _said(name, error)
        job["contexts"] = [{**one, "problems": [*one.get("problems", ()), problem]} for one in shown]
        return Rendered(_render(job), problem)
    return Rendered(_render(job))


def _own(job: Mapping[str, Any]) -> str:
    text = _in_a_process(job)
    if not text.strip():
        raise _BrokenError("it gives no text at all")
    return text


def _said(name: str, error: _BrokenError) -> str:
    line = f":{error.line}" if error.line else ""
    why = clean(str(error), 200).rstrip(".")
    return f"{OWN}/{name}{line}: {why}. The packaged template was used instead: mend the file, or remove it."


def _own_source(home: Path | None, name: str) -> str | None:
    if home is None:
        return None
    try:
        data = read_regular(home / OWN / name, MAX_SOURCE)
        return None if data is None or data == _packaged(name) else data.decode()
    except NotADirectoryError:
        return None
    except OSError as error:
        raise _BrokenError(error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise _BrokenError("it is not UTF-8", data.count(b"\n", 0, error.start) + 1 if data else None) from error


def _packaged(name: str) -> bytes | None:
    """The copy of it that nobody edited needs no process of its own."""
    path = PACKAGED / name
    return path.read_bytes() if path.is_file() else None


def _cleaned(value: Any) -> Any:
    """Every text in it stripped, redacted and capped: here, where the secrets are known by value."""
    if isinstance(value, str):
        return clean(value, MAX_SENTENCE)
    if isinstance(value, Mapping):
        return {key: _cleaned(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(inner) for inner in value]
    return value


def units(text: str) -> int:
    """How long Telegram counts a text: UTF-16 units, so that an emoji is two."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


_EMPHASIS = re.compile(r"(?<!\\)((?:\\\\)*)([*~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")


def plain(value: object) -> object:
    """A text on one line in which no Markdown works: emphasis and links neither. Other values are left as they are."""
    if not isinstance(value, str):
        return value
    text = escape_markdown(clean(value, MAX_SENTENCE)).replace("://", ": //")
    return _EMPHASIS.sub(r"\1\\\2", text)  # an odd number of backslashes before it: escaped already


def unlinked(value: object) -> object:
    """A text on one line, as it is, for where no markup works; an address in it is no link."""
    return clean(value, MAX_SENTENCE).replace("://", ": //") if isinstance(value, str) else value


# --- rendering ---------------------------------------------------------------------------------------------------


def _render(job: Mapping[str, Any]) -> str:
    template = _environment(job).get_template(job["name"])
    text = ""
    for context in job["contexts"]:
        parts, size = [], 0
        for part in template.generate(context):
            parts.append(part)
            size += len(part)
            if size > MAX_OUTPUT:
                raise _BrokenError(f"it writes more than {MAX_OUTPUT >> 20} million characters")
        text = "".join(parts)
        if job["limit"] is None or units(text) <= job["limit"]:
            return text
    return _cut(text, job["limit"])


def _cut(text: str, limit: int) -> str:
    """Whole lines from the start, and a line that says so."""
    end = "… cut: `botkeep report --format markdown` has all of it\n"
    room, kept = limit - units(end), []
    for line in text.splitlines(keepends=True):
        room -= units(line)
        if room < 0:
            break
        kept.append(line)
    return "".join([*kept, end])


def _environment(job: Mapping[str, Any]) -> Environment:
    from jinja2 import ChoiceLoader, FileSystemLoader, FunctionLoader, PrefixLoader, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from markupsafe import Markup

    name, pictures = job["name"], job["pictures"]
    own = (job["source"], _label(name), lambda: True) if "source" in job else None
    packaged = FileSystemLoader(PACKAGED)
    html = name.endswith(".html.j2")
    environment = ImmutableSandboxedEnvironment(
        loader=ChoiceLoader(
            [
                FunctionLoader(lambda asked: own if asked == name else None),
                PrefixLoader({"packaged": packaged}),
                packaged,
            ]
        ),
        autoescape=html,  # other templates: `finalize` escapes every value for Markdown
        finalize=None if html else plain if job["markdown"] else unlinked,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        cache_size=0,
    )
    environment.filters["picture"] = lambda key: Markup(pictures.get(str(key), ""))  # noqa: S704 - our own SVG only
    environment.filters.pop("safe")
    return environment


def _label(name: str) -> str:
    return f"{OWN}/{name}"


# --- the process for a person's own template ---------------------------------------------------------------------


def _in_a_process(job: Mapping[str, Any]) -> str:
    """Raises _BrokenError with what is wrong and where."""
    command = [sys.executable, "-I", "-X", "utf8", "-m", "botkeep.templating"]
    try:
        done = subprocess.run(
            command, input=json.dumps(job).encode(), capture_output=True, timeout=SECONDS + GRACE, check=False, env={},
        )  # fmt: skip
        answer = json.loads(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise _BrokenError(f"it takes longer than {SECONDS} s") from error
    except ValueError as error:
        raise _BrokenError(f"it takes more than {MEMORY >> 20} MiB of memory or {SECONDS} s") from error
    except OSError as error:
        raise _BrokenError(f"no process could be started for it ({error.strerror})") from error
    if "text" in answer:
        return str(answer["text"])
    raise _BrokenError(str(answer["why"]), answer["line"])


class _TooLongError(Exception):
    """The time is over."""


def _main() -> None:
    """The process: a job in, an answer out."""
    job = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS + 2, SECONDS + 2))
    signal.signal(signal.SIGALRM, _over)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    answer = _answer(job)
    signal.setitimer(signal.ITIMER_REAL, 0)
    json.dump(answer, sys.stdout)


def _over(_signal: int, _frame: FrameType | None) -> None:
    raise _TooLongError(f"it takes longer than {SECONDS} s")


def _answer(job: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return {"text": _render(job)}
    except MemoryError:
        return {"why": f"it takes more than {MEMORY >> 20} MiB of memory", "line": None}
    except Exception as error:  # noqa: BLE001 - a person's template may raise anything, and each of it is an answer
        return {"why": f"{_kind(error)}{error}", "line": _line(error, _label(job["name"]))}


def _kind(error: Exception) -> str:
    ours = isinstance(error, _TooLongError | _BrokenError)
    return "" if ours else f"{type(error).__name__.removesuffix('Error') or 'Error'}: "


def _line(error: BaseException, label: str) -> int | None:
    """Of the template: Jinja's own for a syntax error, else the innermost of the traceback."""
    found: int | None = getattr(error, "lineno", None)
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == label:
            found = trace.tb_lineno
        trace = trace.tb_next
    return found


if __name__ == "__main__":
    _main()
