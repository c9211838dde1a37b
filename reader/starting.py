"""How a task gets its reader: the one that answered last, or else one that it starts."""

from __future__ import annotations

import os
import pickle
import select
import subprocess
import sys
from multiprocessing import AuthenticationError
from typing import TYPE_CHECKING, Any

from reader.channel import ask
from schemas.errors import UnavailableError

if TYPE_CHECKING:
    from reader.messages import Harvest, Instruction, ReaderSettings

START_SECONDS = 30.0
"""Deadline for the start of a reader, which takes about half a second."""
_BOOT = "import sys; sys.path[:] = sys.argv[1:]; from reader.process import main; main()"
"""With the parent's import path: a Spark worker's also has files that were shipped with the job."""

_started: list[subprocess.Popen[bytes]] = []
"""Readers that this process started and has not reaped."""


def instruct(settings: ReaderSettings, instruction: Instruction, secret: bytes) -> Harvest:
    """Send an instruction to its reader and return the harvest; without a reader that answers, start one.

    Raises the error that ended the reader, with its own type; UnavailableError when none can be started or answers.
    """
    if instruction.address:
        try:
            return _harvest(ask(instruction.address, secret, instruction))
        except (OSError, EOFError, AuthenticationError):
            pass  # it, or its host, has ended; else it ends by itself, as no task asks it
    address = start(settings, secret)
    try:
        return _harvest(ask(address, secret, instruction))
    except (OSError, EOFError, AuthenticationError) as error:
        raise UnavailableError(f"the reader at {address} does not answer ({type(error).__name__})") from None


def start(settings: ReaderSettings, secret: bytes) -> str:
    """Start a reader that outlives this process, but not its parent, a Spark executor; returns its address.

    Secrets go over a pipe alone.
    """
    _started[:] = [process for process in _started if process.poll() is None]
    process = subprocess.Popen(  # noqa: S603 - this interpreter
        [sys.executable, "-c", _BOOT, *sys.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # a pipe of the parent's breaks when the parent ends
    )
    _started.append(process)
    assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - both are pipes
    with process.stdin as stdin, process.stdout as stdout:
        try:
            stdin.write(pickle.dumps((settings, secret, os.getppid())))
            stdin.close()
            if select.select([stdout], [], [], START_SECONDS)[0]:
                return str(_unless_error(pickle.load(stdout)))  # noqa: S301 - the child's, over a pipe
        except (OSError, EOFError):
            pass  # it ended without an answer
    process.kill()
    raise UnavailableError(
        f"a reader ended while it started, or took longer than {START_SECONDS:.0f} s (exit status {process.wait()})",
        hint="check the memory of the executor, and that its Python has the packages that the source and the stores need",
    )


def _harvest(answer: Any) -> Harvest:
    harvest: Harvest = _unless_error(answer)
    return harvest


def _unless_error(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer
