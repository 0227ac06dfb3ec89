"""Extension point 3: what kind of program a bot is. One module and one signature file each; the key is `profile`."""

from __future__ import annotations

from . import freqtrade, hummingbot, plain
from .base import Hints, Profile, Subject
from .catalogue import Catalogue, Signature

PROFILES: dict[str, Profile] = {
    "freqtrade": freqtrade,
    "hummingbot": hummingbot,
    "plain": plain,
}


def recognised(hints: Hints) -> tuple[str, str]:
    """(profile, why, a clause) for a bot whose configuration names none: the first that knows it, else plain."""
    for name, profile in PROFILES.items():
        if name != "plain" and (why := profile.recognise(hints)):
            return name, why
    return "plain", "nothing says that it is anything else"


__all__ = ["PROFILES", "Catalogue", "Hints", "Profile", "Signature", "Subject", "recognised"]
