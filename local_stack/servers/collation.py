"""A locale whose order differs from that of bytes, so that a missing `COLLATE "C"` shows on a developer's machine."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from local_stack import cache

_ENGLISH = "en_US.UTF-8"


@dataclass(frozen=True, slots=True)
class Collation:
    """How to initialise a database cluster, and what its servers need in their environment."""

    name: str
    options: tuple[str, ...]
    """For initdb."""
    locale_path: Path | None = None
    """Value of LOCPATH: a folder of compiled locales that the C library reads beside its own."""

    @property
    def environment(self) -> dict[str, str]:
        """Variables that both initdb and the server need."""
        return {} if self.locale_path is None else {"LOCPATH": str(self.locale_path)}


BYTES = Collation("builtin C.UTF-8", ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"))
"""Order by code point, which is that of UTF-8 bytes; needs no locale of the system."""


def linguistic() -> Collation:
    """Return English order: the system's locale, else one compiled into the cache, else `BYTES`."""
    options = (f"--locale={_ENGLISH}",)
    if "en_US.utf8" in _run("locale", "-a").splitlines():
        return Collation(_ENGLISH, options)
    folder = cache.cache_dir() / "locale"
    if (folder / _ENGLISH / "LC_COLLATE").exists() or _compile(folder):
        return Collation(f"{_ENGLISH}, compiled", options, folder)
    return BYTES


def _compile(folder: Path) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / f"{_ENGLISH}.new"
    shutil.rmtree(new, ignore_errors=True)
    _run("localedef", "--no-archive", "-i", "en_US", "-f", "UTF-8", str(new))
    if not (new / "LC_COLLATE").exists():
        return False
    new.rename(folder / _ENGLISH)
    return True


def _run(*command: str) -> str:
    if not shutil.which(command[0]):
        return ""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
