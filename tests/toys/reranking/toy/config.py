"""The configuration of a toy reranker."""

from __future__ import annotations

from typing import Literal

from schemas.model import StrictModel


class ToyRerankingConfig(StrictModel):
    """A toy reranker."""

    type: Literal["toy"]
    toy_taste: str
    """The word that it likes."""
