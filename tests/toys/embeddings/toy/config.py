"""The configuration of a toy model."""

from __future__ import annotations

from typing import Literal

from pydantic import SecretStr

from schemas.model import StrictModel


class ToyEmbeddingConfig(StrictModel):
    """A toy model."""

    type: Literal["toy"]
    model: str
    dimensions: int
    toy_key: SecretStr
    """What its provider would ask for; no store may remember it."""
