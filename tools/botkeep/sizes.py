"""Amounts of bytes in words, for sentences."""

from __future__ import annotations

_UNITS = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def size_text(count: int) -> str:
    """`5.0 GB`, `310 MB`, `256 kB`, `12 bytes`: three figures at most, a thousand bytes to the kB."""
    for unit, name in _UNITS:
        if count >= unit:
            share = count / unit
            return f"{share:.1f} {name}" if share < 9.95 else f"{share:.0f} {name}"
    return f"{count} bytes"
