"""The configuration of a toy memory."""

from __future__ import annotations

from typing import Literal

from memory.config import MemorySettings


class ToyMemoryConfig(MemorySettings):
    """A memory in a file, for one process at a time."""

    type: Literal["toy"]
    toy_memory: str
    """The file."""
