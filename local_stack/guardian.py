"""`python -m local_stack.guardian DIRECTORY`: ends the stack of a directory when the process that owns it has ended.

A test run that is killed cannot clean up; this small process does.
"""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path

from local_stack import processes
from local_stack.service import PYTHON_ENVIRONMENT, write_private
from local_stack.stack import Stack

_OWNER = "owner"
_FOLDER = "guardian"


def guard(directory: Path) -> None:
    """Make this process the owner of the stack of `directory`, and start the process that waits for its end."""
    folder = directory / _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    write_private(directory / _OWNER, str(os.getpid()))
    environment = {"PATH": os.environ.get("PATH", os.defpath), **PYTHON_ENVIRONMENT}
    command = [sys.executable, "-m", "local_stack.guardian", str(directory)]
    processes.launch(folder, command, environment, folder / "log")


def main(directory: Path) -> None:
    """Wait for the owner's end, then end the stack and delete its data."""
    try:
        owner = os.pidfd_open(int((directory / _OWNER).read_text()))
    except OSError:  # it has ended already, and may have removed the folder
        pass
    else:
        select.select([owner], [], [])
    if directory.exists():
        Stack(directory).remove()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
