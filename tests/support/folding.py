"""What a console that is no terminal makes of a text: lines of 200 columns, as freqtrade's standard output has them."""

from __future__ import annotations

import re

WIDTH = 200


def fold(text: str, width: int = WIDTH) -> str:
    """`text` with line breaks: between words, where the next one has no room, and inside words longer than a line.

    The blank after the last word of a line stays, if it has room. For text whose letters are one column wide.
    """
    return "\n".join(line for paragraph in text.split("\n") for line in _folded(paragraph, width))


def _folded(paragraph: str, width: int) -> list[str]:
    lines, line = [], ""
    for word in re.findall(r"\s*\S+\s*", paragraph):
        length = len(word.rstrip())
        if len(line) + length <= width:
            line += word
            continue
        if line:
            lines.append(line)
        pieces = [word[at : at + width] for at in range(0, len(word), width)] if length > width else [word]
        lines += pieces[:-1]
        line = pieces[-1]
    return [_cropped(one, width) for one in (*lines, line)]


def _cropped(line: str, width: int) -> str:
    """Without the blanks that stand beyond the last column."""
    return line[: max(width, len(line.rstrip()))]
