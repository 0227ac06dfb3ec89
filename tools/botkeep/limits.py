"""What a bot allows to be changed in trouble: the one file by which it asks its exchange less, and how much memory the
engine that runs it may let it have.

The two documents are the bot's own settings, as a person wrote them: whatever stands in them is data, compared and
written exactly, and never understood.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from .fields import STRICT, Amount

DOCUMENT_LIMIT = 64 << 10
"""Characters of one document, without its spaces."""
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")


def _written_exactly(document: dict[str, Any]) -> dict[str, Any]:
    """Refuse what could not be given back as it was written: bots.json keeps a number of absurd size as text only."""
    if len(canonical(document)) > DOCUMENT_LIMIT:
        raise PydanticCustomError("document", "write a document of at most {most} characters", {"most": DOCUMENT_LIMIT})
    for text in _texts(document):
        if _NUMBER.fullmatch(text) and _is_absurd(text):
            raise PydanticCustomError("document", "write numbers of at most 40 digits and an exponent of at most 30")
    return document


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(inner)


def _is_absurd(text: str) -> bool:
    return len(text) > 40 or abs(Decimal(text).adjusted()) > 30


Document = Annotated[dict[str, Any], AfterValidator(_written_exactly)]


class PollingLimit(BaseModel):
    """A file of the bot's own, into which botkeep writes one of two documents and never anything else."""

    model_config = STRICT

    file: Path = Field(
        description="The bot's, for this alone. freqtrade: its last --config. Of a container mount its folder."
    )
    normal: Document = Field(description="What it holds usually; {} for nothing.")
    reduced: Document = Field(description="What it holds while the exchange is asked less.")
    apply: Literal["reload", "restart", "watched"] = Field(
        description="reload: its API is told to; restart: at its next start; watched: it reads the file again itself."
    )

    @model_validator(mode="after")
    def _differ(self) -> PollingLimit:
        if canonical(self.normal) == canonical(self.reduced):
            raise PydanticCustomError("document", "write a `reduced` that is not the same as `normal`")
        return self


_SIZE = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?) ?(kB|MB|GB|TB|KiB|MiB|GiB|TiB)")
_UNITS = {
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
}


def _size(value: object) -> object:
    """`2GB`, `512MiB` in bytes; a bare number is refused: nobody can see whether 512 are megabytes."""
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    count = int(Decimal(found[1]) * _UNITS[found[2]]) if found else 0
    return count if count >= 1 << 22 else _no_size()


def _no_size() -> int:
    raise PydanticCustomError("size", 'write an amount of memory of at least 4 MiB, like "512MiB" or "2GB"')


Size = Annotated[int, BeforeValidator(_size), WithJsonSchema({"type": "string", "pattern": _SIZE.pattern})]
"""Bytes."""


class MemoryLimit(BaseModel):
    """How far the memory limit of the bot's container may be raised when it was too low."""

    model_config = STRICT

    most: Size = Field(description="Never more than this.")
    step: Amount = Field(Decimal("1.5"), gt=1, le=10, description="Each time by so many times.")


class LimitsConfig(BaseModel):
    """Settings that may be changed in trouble. What is not named here is never touched."""

    model_config = STRICT

    memory: MemoryLimit | None = Field(None, description="How far its container's memory limit may be raised.")
    polling: PollingLimit | None = Field(None, description="How the bot is told to ask its exchange less.")


# --- documents ---------------------------------------------------------------------------------------------------


def canonical(value: Any) -> str:
    """Equal for two JSON values if and only if they say the same: order of keys, spaces and 5.0 for 5 do not count."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{_text(key)}:{canonical(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, Decimal | int) and not isinstance(value, bool):
        return _number(Decimal(value))
    return _text(value)


def _number(value: Decimal) -> str:
    """Its digits and exponent, without the zeros that change nothing; also for one that no float holds."""
    sign, digits, exponent = value.as_tuple()
    kept = "".join(map(str, digits)).rstrip("0")
    return f"{'-' * sign}{kept}e{int(exponent) + len(digits) - len(kept)}" if kept else "0"


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def text_of(document: dict[str, Any]) -> bytes:
    """The document as people write JSON, each number exactly as it stands in bots.json."""
    return f"{_json(document, '')}\n".encode()


def _json(value: Any, indent: str) -> str:
    deeper = f"{indent}  "
    if isinstance(value, dict) and value:
        inner = (f"{deeper}{_text(key)}: {_json(one, deeper)}" for key, one in value.items())
        return "{\n" + ",\n".join(inner) + f"\n{indent}}}"
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(f"{deeper}{_json(one, deeper)}" for one in value) + f"\n{indent}]"
    return str(value) if isinstance(value, Decimal) else _text(value)
