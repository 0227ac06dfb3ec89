"""Draws docs/report-*.png: `report_docs.py FOLDER` (`make report-docs`). Takes two to six minutes, and needs Chromium.

The report is of a week that real bots lived in fast time (report_day.py), its page opened in a real browser: on a
desktop, in the dark, and on a phone.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from support.report_day import DAY, MORNING, a_week

WIDE, PHONE, HIGH = 1280, 390, 6000
PHONE_SHOWN = 1740
"""Pixels of the phone's picture: the rest is more of the same."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main(folder: Path) -> None:
    """Let the week pass, and draw its morning."""
    with tempfile.TemporaryDirectory() as work, a_week(Path(work)) as week:
        week.live()
        page = Path(work) / "report.html"
        page.write_text(week.at(MORNING, lambda desk: desk.report_told(desk.report(MORNING - DAY), "html")))
        print(week.at(MORNING, lambda desk: desk.report_told(desk.report(MORNING - DAY), "plain")))
        shot(page, folder / "report-desktop.png", WIDE)
        shot(page, folder / "report-dark.png", WIDE, dark=True)
        shot(page, folder / "report-phone.png", PHONE, dark=True, most=PHONE_SHOWN)


def shot(page: Path, out: Path, width: int, *, dark: bool = False, most: int = HIGH) -> None:
    """The page as a browser of that width shows it, down to its end."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        sys.exit(f"A browser is needed to draw {out.name}: install one of {', '.join(BROWSERS)}.")
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}",
             f"--window-size={width},{HIGH}", f"--blink-settings=preferredColorScheme={0 if dark else 1}",
             f"--screenshot={out}", page.as_uri()],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
    with Image.open(out) as drawn:
        picture = drawn.convert("RGB")
    ground = Image.new("RGB", picture.size, picture.getpixel((0, 0)))
    _, _, _, end = _differs(picture, ground)
    picture.crop((0, 0, width, min(end + 24, most))).quantize(128).save(out, optimize=True)


def _differs(picture: Image.Image, ground: Image.Image) -> tuple[int, int, int, int]:
    from PIL import ImageChops

    return ImageChops.difference(picture, ground).getbbox() or (0, 0, *picture.size)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
