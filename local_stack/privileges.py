"""Runs servers as `nobody` where this process is root, since PostgreSQL and OpenSearch refuse to run as root.

Where `nobody` may not read the repository or the virtual environment (a home folder often has mode 700), the server keeps one
capability, to bypass file permissions.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from schemas.errors import ConfigurationError

_NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
_PASSING = (  # no_setuid_fixup: else access(2), which PostgreSQL calls on its own binaries, ignores the capability
    *_NOBODY,
    "--securebits=+no_setuid_fixup",
    "--inh-caps=-all,+dac_override",
    "--ambient-caps=-all,+dac_override",
)


def without_root(paths: Sequence[Path]) -> list[str]:
    """Return the command prefix by which a command is not root and can read every path; empty when not root."""
    if os.geteuid() != 0:
        return []
    for prefix in (_NOBODY, _PASSING):
        if shutil.which(prefix[0]) and all(_readable(prefix, path) for path in paths):
            return list(prefix)
    raise ConfigurationError(
        f"The server refuses to run as root, and `nobody` cannot read {', '.join(map(str, paths))}",
        hint="run as another user, or move the repository where every user can read it",
    )


def give_to_nobody(directory: Path) -> None:
    """Make `nobody` the owner of a data folder, which PostgreSQL insists on; nothing to do when not root."""
    if os.geteuid() == 0:
        shutil.chown(directory, "nobody", "nogroup")


def _readable(prefix: Sequence[str], path: Path) -> bool:
    return subprocess.run([*prefix, "test", "-r", str(path)], capture_output=True, check=False).returncode == 0
