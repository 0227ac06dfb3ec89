"""Values as people write them in botkeep's files (lengths of time, amounts, zones, URLs), and one sentence for a
wrong one: where it is, what was found, what to write. Used by the configuration, the playbooks and the schedule.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic_core import ErrorDetails, PydanticCustomError

from . import untrusted

STRICT = ConfigDict(extra="forbid", frozen=True, defer_build=True)
"""For all that people write. Deferred: a model in a model is built with the outer one, not twice at every start."""

_DURATION = re.compile(r"([0-9]{1,8})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = timedelta(days=366)
_AMOUNT = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?")


def parse_duration(value: object) -> timedelta:
    """`20s`, `5m`, `1h`, `7d` as a timedelta, from zero to 366 days.

    Raises PydanticCustomError (a ValueError) otherwise; a bare number too: nobody can see whether 5 are seconds.
    """
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise PydanticCustomError("duration", "write a length of time like 0s, 20s, 5m, 1h or 7d")
    length = timedelta(seconds=int(match[1]) * _UNITS[match[2]])
    if length > _LONGEST:
        raise PydanticCustomError("duration", "write a length of time of at most 366d")
    return length


Duration = Annotated[
    timedelta, BeforeValidator(parse_duration), WithJsonSchema({"type": "string", "pattern": "^[0-9]{1,8}[smhd]$"})
]


def _amount(value: object) -> Decimal:
    # The grammar is ours: Decimal itself takes NaN, 1_000 and full-width digits too.
    if isinstance(value, Decimal | int | str) and not isinstance(value, bool):
        text = format(value, "f") if isinstance(value, Decimal) else str(value)
        if _AMOUNT.fullmatch(text):
            return Decimal(text)
    raise PydanticCustomError("amount", 'write an amount like 1000 or "1000.50"')


Amount = Annotated[Decimal, BeforeValidator(_amount), WithJsonSchema({"type": ["number", "string"]})]
"""Money, exactly as written: a JSON number or text."""


def _zone(value: object) -> object:
    if not isinstance(value, str) or value == "UTC":
        return value
    from zoneinfo import ZoneInfo  # most files name no zone: the check stays fast

    try:
        ZoneInfo(value)
    except (OSError, ValueError, LookupError) as error:
        raise PydanticCustomError("zone", "write a time zone like UTC or Europe/Lisbon") from error
    return value


Zone = Annotated[str, BeforeValidator(_zone)]
"""A time zone's name that this machine knows."""


def _web_address(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        parts = urlsplit(value)
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        right = False
    if not right or not value.isascii() or not value.isprintable() or " " in value:
        raise PydanticCustomError("url", "write a URL like http://localhost:8080/health; only http and https are asked")
    if "@" in parts.netloc:
        raise PydanticCustomError("url", "write the URL without a user name and password")
    return value


WebAddress = Annotated[str, BeforeValidator(_web_address)]
"""http or https only: `file:` and others would let a look read what it should not show."""

_VARIABLE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]{0,126}\}")


def _beat(value: object) -> object:
    if isinstance(value, str):
        _web_address(_VARIABLE.sub("x", value))
    return value


Beat = Annotated[str, BeforeValidator(_beat)]
"""A web address in which `${NAME}` stands for what nobody may read here."""


def _every(value: object) -> object:
    """A length of time above zero, or five cron fields as text."""
    if isinstance(value, str) and len(value.split()) == 5 and len(value) < 200:
        from croniter import croniter  # most bots have no planned restart

        if croniter.is_valid(value):
            return " ".join(value.split())
    try:
        length = parse_duration(value)
    except PydanticCustomError:
        length = timedelta()
    if length < timedelta(minutes=1):
        text = 'write a length of time of at least 1m, like 1h, or five cron fields, like "0 * * * *"'
        raise PydanticCustomError("every", text)
    return length


Every = Annotated[
    timedelta | str,
    BeforeValidator(_every),
    WithJsonSchema({"type": "string", "pattern": r"^([0-9]{1,8}[smhd]|[^ ]+( +[^ ]+){4})$"}),
]
"""How often something planned is done: a timedelta, or cron fields in the people's zone."""


def _short(value: timedelta) -> timedelta:
    if value > timedelta(seconds=60):
        raise PydanticCustomError("duration", "write at most 60s: the bot is down for so long")
    return value


Pause = Annotated[Duration, AfterValidator(_short)]
"""At most a minute."""

Whole = Annotated[int, Field(strict=True)]
"""A whole number; neither text nor true."""


# --- one sentence for a wrong value ------------------------------------------------------------------------------

_ADVICE: dict[str, str] = {
    "string_type": "write text in quotes",
    "int_type": "write a whole number",
    "bool_type": "write true or false",
    "list_type": "write a list: [...]",
    "tuple_type": "write a list: [...]",
    "dict_type": "write an object: {{...}}",
    "model_type": "write an object: {{...}}",
    "path_type": "write a path in quotes",
    "greater_than": "write more than {gt:g}",
    "greater_than_equal": "write {ge:g} or more",
    "less_than": "write less than {lt:g}",
    "less_than_equal": "write {le:g} or less",
    "literal_error": "write {expected}",
    "enum": "write {expected}",
    "too_short": "write at least one",
    "too_long": "write at most {max_length}",
    "string_pattern_mismatch": "write what matches {pattern}",
}


def show(value: object, limit: int = 60) -> str:
    """A value from a person's file, for a sentence: JSON, on one line, without secrets."""
    return untrusted.clean(json.dumps(value, default=_plain, ensure_ascii=False), limit)


def _plain(value: object) -> object:
    return float(value) if isinstance(value, Decimal) else str(value)


def json_path(loc: Iterable[int | str], start: str = "$") -> str:
    """`$.bots[2].runtime.kind`."""
    return start + "".join(f"[{part}]" if isinstance(part, int) else f".{untrusted.clean(part, 60)}" for part in loc)


def closest(word: str, known: Iterable[str]) -> str:
    """`did you mean X? (known: A, X, B)`, or `write one of: A, B`."""
    names = list(known)
    if not names:
        return "write none here"
    near, all_of_them = difflib.get_close_matches(word, names, n=1), ", ".join(names)
    return f"did you mean {near[0]}? (known: {all_of_them})" if near else f"write one of: {all_of_them}"


def known_keys(model: type[BaseModel], loc: Iterable[int | str]) -> list[str]:
    """The keys of the (nested) model that `loc` leads to; empty if it leads elsewhere."""
    for part in loc:
        field = next((f for name, f in model.model_fields.items() if part in (name, f.alias)), None)
        inner = _model_in(field.annotation) if field else None
        if inner is None:
            return []
        model = inner
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)


def explain(error: ValidationError, model: type[BaseModel]) -> tuple[tuple[int | str, ...], str]:
    """Where the first mistake is, and the sentence about it: what was found, what to write; how many more there are.

    An unknown key goes first: misspelt, it is also the reason why another one is missing.
    """
    mistakes = sorted(error.errors(include_url=False), key=lambda mistake: mistake["type"] != "extra_forbidden")
    loc, text = _sentence(mistakes[0], model)
    more = f" ({len(mistakes) - 1} more after this one)" if len(mistakes) > 1 else ""
    return loc, text + more


def _sentence(mistake: ErrorDetails, model: type[BaseModel]) -> tuple[tuple[int | str, ...], str]:
    loc = mistake["loc"]
    if mistake["type"] == "missing":
        return loc, "it is missing; write it"
    if mistake["type"] == "extra_forbidden":
        return loc, f"there is no such key; {closest(str(loc[-1]), known_keys(model, loc[:-1]))}"
    return loc, f"found {show(mistake['input'])}; {_advice(mistake)}"


def _advice(mistake: ErrorDetails) -> str:
    context: Mapping[str, Any] = mistake.get("ctx", {})
    template = _ADVICE.get(mistake["type"])
    if template is not None:
        return template.format_map(context)
    return mistake["msg"].removeprefix("Value error, ").replace("Input should", "it should")
