"""The configuration of a toy text model."""

from __future__ import annotations

from typing import Literal

from schemas.model import StrictModel


class ToyGenerationConfig(StrictModel):
    """A toy text model."""

    type: Literal["toy"]
    toy_opinion: str
    """What it says to everything."""
