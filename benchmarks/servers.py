"""The servers that a measurement starts, and takes away again however it ends."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from local_stack.guardian import guard
from local_stack.stack import Stack


@contextmanager
def servers(parts: Sequence[str]) -> Iterator[Stack]:
    """These parts of the local stack, up and then gone, also when this process is killed."""
    stack = Stack(Path(tempfile.mkdtemp(prefix="ragstream-bench-")))
    guard(stack.directory)
    try:
        stack.up(list(parts))
        yield stack
    finally:
        stack.remove()
