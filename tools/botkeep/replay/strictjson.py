"""One JSON object from a line that anybody may have written: bounded, exact, and no key twice.

Python's own parser takes NaN, 1e999 and a key that stands twice, and turns 0.1 into a float; here numbers stay the
text they were written as.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

DEEPEST = 16


def json_object(data: bytes) -> dict[str, Any] | None:
    """The object, its numbers as text; None for anything else. Linear in `data`, which should be a capped line."""
    if not data.startswith(b"{") or data.count(b"{") + data.count(b"[") > 8 * DEEPEST:
        return None
    try:
        found = json.loads(
            data.decode("utf-8"), object_pairs_hook=_once, parse_float=str, parse_int=str, parse_constant=_refuse
        )
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and _is_flat(found) else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


def _is_flat(value: Any, depth: int = 0) -> bool:
    if depth > DEEPEST:
        return False
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return all(_is_flat(one, depth + 1) for one in inner)
