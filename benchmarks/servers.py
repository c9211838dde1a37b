"""The servers of a measurement, which end with it, also when it is killed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from local_stack.guardian import guard
from local_stack.stack import Stack


@contextmanager
def servers(parts: Sequence[str]) -> Iterator[Stack]:
    """Start these parts of the local stack; they end with the block, also when this process is killed."""
    stack = Stack(Path(tempfile.mkdtemp(prefix="ragstream-bench-")))
    guard(stack.directory)
    try:
        stack.up(list(parts))
        yield stack
    finally:
        stack.remove()
