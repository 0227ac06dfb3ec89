"""Extension point 3: what kind of program a bot is. One module and one signature file each; the key is `profile`."""

from __future__ import annotations

from . import plain
from .base import Catalogue, Profile, Signature

PROFILES: dict[str, Profile] = {
    "plain": plain,
}

__all__ = ["PROFILES", "Catalogue", "Profile", "Signature"]
