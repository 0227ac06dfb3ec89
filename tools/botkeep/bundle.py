"""Where SKILL.md, the skills and the packaged playbooks live: in the wheel's bundle, or in the checkout."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def root() -> Path:
    """The folder with SKILL.md, skills/, playbooks/ and memory/.

    The checkout's own files win over a copy that an editable install once left in site-packages: the package is then
    imported from the checkout, and only an installed wheel has `bundle` beside the modules.
    """
    bundled = Path(__file__).parent / "bundle"
    return bundled if (bundled / "SKILL.md").is_file() else Path(__file__).resolve().parents[2]
