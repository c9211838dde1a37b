"""The configuration of a toy text model."""

from __future__ import annotations

from typing import Literal

from generation.rules import AnswerRules


class ToyGenerationConfig(AnswerRules):
    """A toy text model."""

    type: Literal["toy"]
    toy_opinion: str
    """What it says to everything."""
