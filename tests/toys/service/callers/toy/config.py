"""Callers who say a word."""

from __future__ import annotations

from typing import Literal

from schemas.model import StrictModel


class ToyCallersConfig(StrictModel):
    """Callers send `Authorization: Bearer WORD-USER-TENANT`."""

    type: Literal["toy"]
    toy_word: str
    """The word."""
